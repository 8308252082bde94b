"""Downward initialisation: float, 8, 7, ... bits, each model from the one before."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .codebook import CodebookConv2d
from .layers import QuantizedLayer

SCALES = (".weight_scale", ".out_scale", ".tile")


@torch.no_grad()
def init_from(low: nn.Module, high: nn.Module) -> nn.Module:
    """Start a low-bit model from a float or higher-bit one, the paper's downward initialisation.

    Copies parameters and buffers (batch-norm statistics too) by name and shape, and recomputes
    what follows from the bits. A codebook that only `low` has starts from the weights.

    Parameters
    ----------
    low : nn.Module
        Model to initialise, in place.
    high : nn.Module
        Model of the same structure.

    Returns
    -------
    nn.Module
        `low`.

    Raises
    ------
    ValueError
        If a name or shape occurs in one of the models only.
    """
    target, source = (_trained(model) for model in (low, high))
    shapes = [{(name, tuple(v.shape)) for name, v in state.items()} for state in (target, source)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"init_from: only in low: {sorted(shapes[0] - shapes[1])}; "
            f"only in high: {sorted(shapes[1] - shapes[0])}. Use models of the same structure."
        )
    for name, value in target.items():
        value.copy_(source[name])
    for name, module in low.named_modules():
        if isinstance(module, CodebookConv2d):
            _start_codebook(module, dict(high.named_modules())[name])
        elif isinstance(module, QuantizedLayer):
            module.update_scales()
    return low


def _start_codebook(low: CodebookConv2d, high: nn.Module) -> None:
    kind = (low.select, low.codewords)
    if isinstance(high, CodebookConv2d) and (high.select, high.codewords) == kind:
        low.choice.load_state_dict(high.choice.state_dict())
        low.update_scales()
    else:
        low.start_codebook()


def _trained(model: nn.Module) -> dict[str, Tensor]:
    """What is copied by name: all of the state but what follows from it, and codebooks."""
    codebooks = tuple(
        f".{name}.{part}".replace("..", ".")  # The model itself has no name.
        for name, module in model.named_modules()
        if isinstance(module, CodebookConv2d)
        for part in ("index", "choice.")
    )
    state = {f".{name}": value for name, value in model.state_dict().items()}
    return {
        name[1:]: value
        for name, value in state.items()
        if not name.endswith(SCALES) and not name.startswith(codebooks)
    }
