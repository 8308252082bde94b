"""Images to train on that a package of the system brings."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDER = Path("/usr/share/datasets/fashion-mnist")
HEADER = {"images": 16, "labels": 8}  # Bytes in front of the numbers: magic and sizes.
SIZE = 28


def load_fashion() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fashion-MNIST: 28 by 28 pixels of ten kinds of clothing (Xiao et al., arXiv 1708.07747).

    Debian's package `dataset-fashion-mnist` has all images; the environment variable
    ``FASHION_MNIST`` names another folder with its four files.

    Returns
    -------
    x_train, y_train, x_test, y_test : tuple of Tensors
        Float32 (N, 1, 28, 28) in 0..1 and int64 (N,); N is 60,000 to train with and 10,000 held
        out, as the data set has it.

    Raises
    ------
    FileNotFoundError
        If the files aren't there, with how to get them.
    """
    folder = Path(os.environ.get("FASHION_MNIST", FOLDER))
    if not (folder / "train-images-idx3-ubyte.gz").exists():
        raise FileNotFoundError(
            f"Fashion-MNIST isn't in {folder}: apt-get install dataset-fashion-mnist, or set"
            " FASHION_MNIST to a folder with its four files (train-images-idx3-ubyte.gz ...)."
        )
    x_train, y_train, x_test, y_test = (
        _numbers(folder / f"{part}-{kind}-idx{3 if kind == 'images' else 1}-ubyte.gz", kind)
        for part in ("train", "t10k")
        for kind in ("images", "labels")
    )
    return x_train, y_train, x_test, y_test


def _numbers(path: Path, kind: str) -> Tensor:
    with gzip.open(path) as file:
        values = np.frombuffer(file.read(), np.uint8, offset=HEADER[kind])
    if kind == "labels":
        return torch.from_numpy(values.astype(np.int64))
    return torch.from_numpy(values.reshape(-1, 1, SIZE, SIZE).astype(np.float32) / 255)
