"""Train a small network on scikit-learn's 8x8 digits, from float down to 1 bit.

    python tutorials/digits.py

The paper trains 1 and 2 bits with Adam and more bits with SGD at a learning rate of 0.1. On this
task SGD gains nothing at 4 bits, so all models use Adam.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn import datasets
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

from tvm_bitenc.nn import DigitsCNN, init_from, training

OUT = Path(__file__).parents[1] / "build"  # Pictures go here.


def load_digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x_train, y_train, x_test, y_test: float32 (N, 1, 8, 8) in 0..16 and int64 (N,).

    A fixed stratified split: 1347 images to train with, 450 held out.
    """
    images, labels = datasets.load_digits(return_X_y=True)
    images = images.astype(np.float32).reshape(-1, 1, 8, 8)
    x_train, x_test, y_train, y_test = map(
        torch.from_numpy,
        train_test_split(images, labels, test_size=450, stratify=labels, random_state=0),
    )
    return x_train, y_train, x_test, y_test


def train(
    model: nn.Module,
    data: tuple[Tensor, ...],
    epochs: int,
    lr: float = 3e-3,
    optimizer: type[torch.optim.Optimizer] = torch.optim.Adam,
    progress: Callable[[], None] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
) -> nn.Module:
    """Train on images shifted by up to one pixel; the learning rate falls to 0 as a cosine.

    Parameters
    ----------
    model : nn.Module
        Trained in place.
    data : tuple of Tensors
        x_train and y_train come first, as in `load_digits`.
    epochs : int
    lr : float
        Learning rate at the start.
    optimizer : type
        Called with the parameters and lr.
    progress : callable, optional
        Called after every epoch.
    seed : int
        Of the order of the batches and the shifts.
    batch_size : int
    loss : callable
        Of the model's outputs and their part of y.
    augment : callable, optional
        Makes new images of a batch's with the generator; by default it shifts each.

    Returns
    -------
    nn.Module
        The model in eval mode.
    """
    return training.train(
        model,
        *data[:2],
        epochs=epochs,
        rate=lr,
        optimizer=optimizer,
        batch_size=batch_size,
        loss=loss,
        augment=augment or _shift,
        progress=progress,
        seed=seed,
        falls_by="epoch",
    )


def _shift(x: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image by -1, 0 or +1 pixels in both directions."""
    windows = functional.pad(x, (1, 1, 1, 1)).unfold(2, 8, 1).unfold(3, 8, 1)
    dy, dx = torch.randint(3, (2, len(x)), generator=generator)
    return windows[torch.arange(len(x)), :, dy, dx]


@torch.no_grad()
def accuracy(predict: Callable[[Tensor], Tensor | np.ndarray], x: Tensor, y: Tensor) -> float:
    """Share of images whose largest logit is that of their label."""
    return (torch.as_tensor(predict(x)).argmax(1) == y).float().mean().item()


def train_route(
    bits: Sequence[int] = (4, 2, 1),
    data: tuple[Tensor, ...] | None = None,
    epochs: int = 15,
    progress: Callable[[str], None] | None = None,
    seed: int = 0,
    low_epochs: int | None = None,
) -> dict[str, nn.Module]:
    """Train the float network, then one per number of bits, each initialised from the one before.

    Parameters
    ----------
    bits : sequence of int
        Weight and activation bits of the body, downward.
    data : tuple of Tensors, optional
        Default: `load_digits`.
    epochs : int
        For each of the models, or for the float one alone.
    progress : callable, optional
        Called with a model's name after each of its epochs.
    seed : int
        Of initial weights, order and shifts; the results are the same for the same seed.
    low_epochs : int, optional
        For each of the others: they start from a trained model.

    Returns
    -------
    dict
        Models in eval mode by name: "float", "W4A4", ...
    """
    data = data or load_digits()
    models = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for k in (None, *bits):
            name, model = f"W{k}A{k}" if k else "float", DigitsCNN(k, k)
            if models:
                init_from(model, next(reversed(models.values())))
            count = epochs if low_epochs is None or k is None else low_epochs
            models[name] = train(
                model, data, count, progress=progress and partial(progress, name), seed=seed
            )
    return models


def main() -> None:
    """Train and print the table of accuracies."""
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    bits, epochs, data = (8, 4, 2, 1), 15, load_digits()
    with Progress() as bar:
        task = bar.add_task("float", total=(1 + len(bits)) * epochs)
        models = train_route(
            bits, data, epochs, lambda name: bar.update(task, advance=1, description=name)
        )
    table = Table("model", "held-out accuracy")
    for name, model in models.items():
        table.add_row(name, f"{accuracy(model, *data[2:]):.2%}")
    Console().print(table)


if __name__ == "__main__":
    main()
