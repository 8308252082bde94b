"""A training loop for classifiers of images, as tutorials and benchmarks share it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .codewords import LatentKernels, PermutedKernels, anneal_codebooks
from .layers import check_choice


def train(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    epochs: int,
    rate: float = 3e-3,
    *,
    optimizer: type[torch.optim.Optimizer] = torch.optim.Adam,
    batch_size: int = 64,
    loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    progress: Callable[[], None] | None = None,
    seed: int = 0,
    codebook_rate: float = 10.0,
    falls_by: str = "step",
) -> nn.Module:
    """Train a model; the learning rate falls to 0 as a cosine.

    Permutations of `CodebookConv2d` are annealed.

    Parameters
    ----------
    model : nn.Module
        Trained in place.
    images, targets : Tensor
        Of equal length. For the default loss, targets are labels, int64 (N,), or a probability of
        each label, float32 (N, labels): see `distilled`.
    epochs : int
    rate : float
        Learning rate at the start.
    optimizer : type
        Called with groups of parameters and the rate.
    batch_size : int
    loss : callable
        Of the model's outputs and their part of the targets.
    augment : callable, optional
        Makes new images of a batch's with the generator.
    progress : callable, optional
        Called after every epoch.
    seed : int
        Of the order of the batches and of `augment`.
    codebook_rate : float
        How many times the rate codebooks learn at. What decides on codewords starts far from where
        they change: the fewer the steps, the more it takes for them to change at all.
    falls_by : {"step", "epoch"}
        When the learning rate falls.

    Returns
    -------
    nn.Module
        The model in eval mode.

    Raises
    ------
    ValueError
        For another `falls_by`.
    """
    check_choice("train: falls_by", falls_by, ("step", "epoch"))
    generator = torch.Generator().manual_seed(seed)
    stepper = optimizer(_groups(model, codebook_rate * rate), lr=rate)  # type: ignore[call-arg]
    steps, done = epochs * -(-len(images) // batch_size), 0
    falls = steps if falls_by == "step" else epochs
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(stepper, max(falls, 1))
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=generator).split(batch_size):
            anneal_codebooks(model, done / steps)
            stepper.zero_grad()
            x = augment(images[batch], generator) if augment else images[batch]
            loss(model(x), targets[batch]).backward()
            stepper.step()
            done += 1
            if falls_by == "step":
                schedule.step()
        if falls_by == "epoch":
            schedule.step()
        if progress:
            progress()
    return model.eval()


def _groups(model: nn.Module, codebook_rate: float) -> list[dict[str, Any]]:
    codebooks = [m for m in model.modules() if isinstance(m, (LatentKernels, PermutedKernels))]
    choices = [parameter for codebook in codebooks for parameter in codebook.parameters()]
    if not choices:
        return [dict(params=list(model.parameters()))]
    ids = {id(parameter) for parameter in choices}
    others = [parameter for parameter in model.parameters() if id(parameter) not in ids]
    return [dict(params=others), dict(params=choices, lr=codebook_rate)]


@torch.no_grad()
def distilled(teacher: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 500) -> Tensor:
    """Targets for `train`: halfway between the labels and what a teacher makes of the images.

    Parameters
    ----------
    teacher : nn.Module
        In eval mode.
    images : Tensor
    labels : Tensor of int64, shape (N,)
    batch_size : int

    Returns
    -------
    Tensor of float32, shape (N, outputs)
        Probabilities.
    """
    logits = torch.cat([teacher(part) for part in images.split(batch_size)])
    certain = functional.one_hot(labels, logits.shape[1])
    return (logits.softmax(1) + certain) / 2


def flipped(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images (N, C, H, W) of which about half are turned left to right, for `train`."""
    turned = torch.rand(len(x), generator=generator) < 0.5
    return torch.where(turned[:, None, None, None], x.flip(3), x)
