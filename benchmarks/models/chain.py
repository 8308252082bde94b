"""Equal layers one after another: what a layer costs inside of a network."""

from __future__ import annotations

from torch import nn

from .parts import ConvNormAct, linear, pair, rectifier


class ConvChain(nn.Sequential):
    """Convolutions of equal sizes, each with batch-norm and ReLU."""

    def __init__(
        self,
        weight_bits: int | None,
        act_bits: int | None,
        *,
        layers: int,
        channels: int,
        kernel_size: int,
    ):
        bits = pair(weight_bits, act_bits)
        super().__init__(
            *(
                ConvNormAct(bits, channels, channels, kernel_size, signed=i == 0)
                for i in range(layers)
            )
        )


class MLP(nn.Sequential):
    """Two dense layers with ReLU between, `hidden` wide in the middle."""

    def __init__(
        self,
        weight_bits: int | None,
        act_bits: int | None,
        *,
        width: int = 768,
        hidden: int = 3072,
    ):
        bits = pair(weight_bits, act_bits)
        super().__init__(
            linear(bits, width, hidden, signed=True),
            rectifier(bits, nn.ReLU()),
            linear(bits, hidden, width),
        )
