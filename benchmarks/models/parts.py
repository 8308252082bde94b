"""Layers of few bits or in float, under the same names: what the networks here are made of."""

from __future__ import annotations

from typing import Any

from torch import nn

from tvm_bitenc.nn import QActivation, QConv2d, QLinear

Bits = tuple[int, int]  # Of weights and activations; None in its place means float.
ENDS: Bits = (8, 8)  # Of a network's first and last layer, as is usual.
RANGE = 3.0  # Batch-norm's and layer-norm's outputs rarely leave it: quantizers clip there.


def pair(weight_bits: int | None, act_bits: int | None) -> Bits | None:
    """Join what networks take as two parameters; both None give the float twin.

    Raises
    ------
    ValueError
        For None in one place only.
    """
    if weight_bits is None and act_bits is None:
        return None
    if weight_bits is None or act_bits is None:
        raise ValueError("None for one of weight_bits, act_bits. Use it for both.")
    return weight_bits, act_bits


def ends(bits: Bits | None) -> Bits | None:
    """Bits of the first and the last layer of a network whose body has `bits`."""
    return None if bits is None else ENDS


def _quantizers(bits: Bits, signed: bool) -> dict[str, Any]:
    weight_bits, act_bits = bits
    kind = "tanh" if signed or act_bits == 1 else "relu"
    return dict(weight_bits=weight_bits, act=QActivation(act_bits, kind, input_range=RANGE))


def conv(bits: Bits | None, *sizes: int, signed: bool = False, **options) -> nn.Conv2d:
    """Make a convolution with the arguments of torch's; `signed`: its input goes below zero."""
    if bits is None:
        return nn.Conv2d(*sizes, **options)
    return QConv2d(*sizes, **options, **_quantizers(bits, signed))


def linear(bits: Bits | None, *sizes: int, signed: bool = False) -> nn.Linear:
    """Make a dense layer; `signed`: its input goes below zero."""
    return nn.Linear(*sizes) if bits is None else QLinear(*sizes, **_quantizers(bits, signed))


def rectifier(bits: Bits | None, made: nn.Module) -> nn.Module:
    """Keep a ReLU, but not in front of 1-bit activations: their sign takes its place."""
    return nn.Identity() if bits is not None and bits[1] == 1 else made


class ConvNormAct(nn.Sequential):
    """Convolution that keeps the size but for its stride, batch-norm and an activation."""

    def __init__(
        self,
        bits: Bits | None,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        act: nn.Module | None = None,
        signed: bool = False,
    ):
        sizes = (in_channels, out_channels, kernel_size, stride, kernel_size // 2)
        super().__init__(
            conv(bits, *sizes, groups=groups, bias=False, signed=signed),
            nn.BatchNorm2d(out_channels),
            rectifier(bits, nn.ReLU()) if act is None else act,
        )
