"""Downward initialisation: float, 8, 7, ... bits, each model from the one before."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .bit_planes import BitPlaneConv2d
from .codebook import CodebookConv2d
from .piecewise import PiecewiseActivation, PiecewiseConv2d
from .scaled import ScaledModule

SCALES = (".weight_scale", ".out_scale", ".tile")
OWN: dict[type[nn.Module], tuple[str, ...]] = {  # Follows from the rest, or only such layers have.
    CodebookConv2d: ("index", "choice."),
    PiecewiseConv2d: ("endpoints", "coefficients"),
    PiecewiseActivation: ("",),
}


@torch.no_grad()
def init_from(low: nn.Module, high: nn.Module) -> nn.Module:
    """Start a low-bit model from a float or higher-bit one, the paper's downward initialisation.

    Copies parameters and buffers (batch-norm statistics too) by name and shape, and recomputes
    what follows from the bits. What only layers of `low` have starts from the weights: codebooks,
    and steps of a piecewise activation from where they are. All planes of a `BitPlaneConv2d` start
    from the weight of a float or quantized convolution.

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
    modules = dict(high.named_modules())
    target, source = _trained(low), _trained(high)
    found, wanted = ({(k, tuple(v.shape)) for k, v in state.items()} for state in (target, source))
    for name, module in low.named_modules():
        if isinstance(module, BitPlaneConv2d) and not isinstance(modules.get(name), BitPlaneConv2d):
            weight, shape = f"{name}.weight".lstrip("."), tuple(module.weight.shape)
            found = found - {(weight, shape)} | {(weight, shape[1:])}  # Copied to every plane.
    if found != wanted:
        raise ValueError(
            f"init_from: only in low: {sorted(found - wanted)}; "
            f"only in high: {sorted(wanted - found)}. Use models of the same structure."
        )
    for name, value in target.items():
        value.copy_(source[name])
    for name, module in low.named_modules():
        if isinstance(module, CodebookConv2d):
            _start_codebook(module, modules[name])
        elif isinstance(module, PiecewiseActivation):
            _copy_steps(module, modules.get(name))
        elif isinstance(module, ScaledModule):
            module.update_scales()
    return low


def _start_codebook(low: CodebookConv2d, high: nn.Module) -> None:
    kind = (low.select, low.codewords)
    if isinstance(high, CodebookConv2d) and (high.select, high.codewords) == kind:
        low.choice.load_state_dict(high.choice.state_dict())
        low.update_scales()
    else:
        low.start_codebook()


def _copy_steps(low: PiecewiseActivation, high: nn.Module | None) -> None:
    if isinstance(high, PiecewiseActivation) and len(high.bounds) == len(low.bounds):
        low.load_state_dict(high.state_dict())


def _trained(model: nn.Module) -> dict[str, Tensor]:
    """What is copied by name: all of the state but what follows from it, and what layers own."""
    own = tuple(
        f".{name}.{part}".replace("..", ".")  # The model itself has no name.
        for name, module in model.named_modules()
        for kind, parts in OWN.items()
        if isinstance(module, kind)
        for part in parts
    )
    state = {f".{name}": value for name, value in model.state_dict().items()}
    return {
        name[1:]: value
        for name, value in state.items()
        if not name.endswith(SCALES) and not name.startswith(own)
    }
