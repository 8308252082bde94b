"""Scenes of scanned digits at random places and sizes, with boxes and masks.

Detection and segmentation share them. The digits of the test scenes are held out: no digit of
theirs appears in a training scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import digits
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

SIZE = 48  # Of a scene, in pixels.
DIGIT_SIZES = (12, 24)  # Least and largest of a digit, in pixels.
DIGITS = (2, 4)  # Fewest and most in a scene.
TRIES = 20  # To find a free place for a digit; a scene that is full gets none.
INK = 0.25  # Brighter pixels belong to the digit.
BACKGROUND = 10  # Class of all other pixels.


@dataclass(frozen=True)
class Scenes:
    """Scenes, and what is in them.

    Parameters
    ----------
    images : Tensor of float32, shape (N, 1, SIZE, SIZE)
        0 is black, 1 is white.
    boxes : list of N Tensors of float32, shape (digits, 4)
        Left, top, right and bottom edge of the ink.
    labels : list of N Tensors of int64, shape (digits,)
    masks : Tensor of int64, shape (N, SIZE, SIZE)
        Class of each pixel: a digit, or `BACKGROUND`.
    """

    images: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]
    masks: Tensor

    def __len__(self) -> int:
        return len(self.images)


def load_scenes(train: int = 1500, test: int = 200, seed: int = 0) -> tuple[Scenes, Scenes]:
    """Compose scenes to train with, and scenes to test with."""
    x_train, y_train, x_test, y_test = digits.load_digits()
    return (
        compose(x_train, y_train, train, np.random.default_rng(seed)),
        compose(x_test, y_test, test, np.random.default_rng(seed + 1)),
    )


def compose(x: Tensor, y: Tensor, count: int, rng: np.random.Generator) -> Scenes:
    """Compose `count` scenes of some of the digits x (N, 1, 8, 8), whose labels are y."""
    images = torch.zeros(count, 1, SIZE, SIZE)
    masks = torch.full((count, SIZE, SIZE), BACKGROUND)
    boxes, labels = [], []
    for image, mask in zip(images[:, 0], masks):
        placed = []
        for index in rng.integers(len(x), size=rng.integers(DIGITS[0], DIGITS[1] + 1)):
            box = _place(image, mask, x[index], int(y[index]), rng)
            if box is not None:
                placed.append((box, int(y[index])))
        boxes.append(torch.tensor([box for box, _ in placed], dtype=torch.float32).reshape(-1, 4))
        labels.append(torch.tensor([label for _, label in placed], dtype=torch.int64))
    return Scenes(images, boxes, labels, masks)


def _place(image: Tensor, mask: Tensor, digit: Tensor, label: int, rng) -> tuple | None:
    """Draw a digit where nothing is yet and return the box of its ink; None if all is full."""
    for _ in range(TRIES):
        size = int(rng.integers(DIGIT_SIZES[0], DIGIT_SIZES[1] + 1))
        top, left = (int(edge) for edge in rng.integers(SIZE - size + 1, size=2))
        window = slice(top, top + size), slice(left, left + size)
        if not image[window].any():
            break
    else:
        return None
    image[window] = _enlarged(digit, size)
    ink = image[window] > INK
    mask[window][ink] = label
    rows, columns = ink.any(1).nonzero(), ink.any(0).nonzero()
    return (
        left + columns.min().item(),
        top + rows.min().item(),
        left + columns.max().item() + 1,
        top + rows.max().item() + 1,
    )


def _enlarged(digit: Tensor, size: int) -> Tensor:
    enlarged = functional.interpolate(digit[None] / 16, size=(size, size), mode="bilinear")
    return enlarged[0, 0]
