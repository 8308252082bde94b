"""Downward initialisation: float, 8, 7, ... bits, each model from the one before."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import QuantizedLayer


@torch.no_grad()
def init_from(low: nn.Module, high: nn.Module) -> nn.Module:
    """Start a low-bit model from a float or higher-bit one, the paper's downward initialisation.

    Copies parameters and buffers (batch-norm statistics too) by name and shape, and recomputes
    what follows from the bits.

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
    target, source = (_state_without_scales(model) for model in (low, high))
    shapes = [{(name, tuple(v.shape)) for name, v in state.items()} for state in (target, source)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"init_from: only in low: {sorted(shapes[0] - shapes[1])}; "
            f"only in high: {sorted(shapes[1] - shapes[0])}. Use models of the same structure."
        )
    for name, value in target.items():
        value.copy_(source[name])
    for module in low.modules():
        if isinstance(module, QuantizedLayer):
            module.update_scales()
    return low


def _state_without_scales(model: nn.Module) -> dict[str, Tensor]:
    scales = (".weight_scale", ".out_scale", ".tile")
    return {k: v for k, v in model.state_dict().items() if not f".{k}".endswith(scales)}
