"""A residual network for Fashion-MNIST's 28x28 images, at any bits, with tiles or codewords."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..bit_planes import BitPlaneConv2d
from ..codebook import CodebookConv2d
from ..layers import QActivation, QConv2d, QLinear, check_choice
from ..piecewise import PiecewiseActivation, PiecewiseConv2d

INPUT_RANGES = {1: 1.0, 2: 2.0, 3: 2.5}  # By bits, 3.0 for more: the least error on a Gaussian.
TILED_FROM = 64_000  # Weights of a layer: smaller ones aren't tiled, as in Tiled Bit Networks.
FIRST = ("int8", "planes", "sign")


class FashionNet(nn.Module):
    """A 5x5 convolution of stride 2, three residual 3x3 ones, and a classifier of 4x4 positions.

    Parameters
    ----------
    options : dict, optional
        Keyword arguments of the `QConv2d`, `CodebookConv2d` or `PiecewiseConv2d` that the 3x3
        convolutions are, such as ``weight_bits=1, act_bits=2, tiles=4``, ``codewords=32,
        act_bits=2`` or ``weight_pieces=4, act_steps=5``. The classifier has 8 bits, as is usual;
        the smallest 3x3 convolution isn't tiled. None: the float twin with ReLU, of the same
        parameter names.
    first : {"int8", "planes", "sign"}
        The first layer: weights and pixels of 8 bits, as is usual; a `BitPlaneConv2d`; or weights
        and pixels of one bit, which is whether a pixel is above half.

    Raises
    ------
    ValueError
        For another `first`.
    """

    def __init__(self, options: dict[str, Any] | None = None, first: str = "int8"):
        super().__init__()
        check_choice("FashionNet: first", first, FIRST)
        window, classifier = (1, 32, 5, 2, 4), (128 * 4 * 4, 10)
        self.pixels = _Pixels(first)
        if options is None:
            self.first: nn.Module = nn.Conv2d(*window, bias=False)
            self.classifier: nn.Module = nn.Linear(*classifier)
        else:
            bits = 1 if first == "sign" else 8
            self.first = (
                BitPlaneConv2d(*window, bias=False)
                if first == "planes"
                else QConv2d(*window, bias=False, weight_bits=bits, act_bits=bits)
            )
            act = QActivation(8, input_range=4.0)
            self.classifier = QLinear(*classifier, weight_bits=8, act=act)
        self.norm = nn.BatchNorm2d(32)
        self.blocks = nn.Sequential(
            Block(32, 64, options, 2), Block(64, 128, options, 2), Block(128, 128, options)
        )
        self.last = nn.BatchNorm2d(128)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 10) from float32 images (N, 1, 28, 28) in 0..1."""
        x = self.norm(self.first(self.pixels(x)))
        x = self.last(self.blocks(x))
        return self.classifier(functional.relu(x).flatten(1))


class _Pixels(nn.Module):
    """Images in 0..1 as a first layer takes them: bytes for planes, around 0 for the sign."""

    def __init__(self, first: str):
        super().__init__()
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        if self.first == "planes":
            return torch.round(x * 255)
        return x - 0.5 if self.first == "sign" else x


class Block(nn.Module):
    """A 3x3 convolution between batch-norms, with a float shortcut around it (Bi-Real Net).

    The first batch-norm learns where the quantizer's levels lie, channel by channel.
    """

    def __init__(
        self, channels: int, out_channels: int, options: dict[str, Any] | None, stride: int = 1
    ):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.act = nn.ReLU() if options is None else nn.Identity()
        self.conv = _convolution(channels, out_channels, stride, options)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shrink = nn.AvgPool2d(2) if stride == 2 else nn.Identity()
        self.copies = out_channels // channels

    def forward(self, x: Tensor) -> Tensor:
        """Float32 (N, out_channels, H / stride, W / stride)."""
        y = self.norm2(self.conv(self.act(self.norm1(x))))
        # Interleaved: copies of one channel get different sums from tiles, which repeat one behind
        # the other.
        return y + self.shrink(x).repeat_interleave(self.copies, 1)


def _convolution(
    channels: int, out_channels: int, stride: int, options: dict[str, Any] | None
) -> nn.Conv2d:
    """The 3x3 convolution of a block, which quantizes its input itself."""
    window = (channels, out_channels, 3, stride, 1)
    if options is None:
        return nn.Conv2d(*window, bias=False)
    more = dict(options)
    if "weight_pieces" in more:
        steps = PiecewiseActivation(more.pop("act_steps"), input_range=INPUT_RANGES[3])
        return PiecewiseConv2d(*window, bias=False, act=steps, **more)
    bits = more.pop("act_bits")
    if channels * out_channels * 9 < TILED_FROM:
        more.pop("tiles", None)
    layer = CodebookConv2d if "codewords" in more else QConv2d
    act = QActivation(bits, input_range=INPUT_RANGES.get(bits, 3.0))
    return layer(*window, bias=False, act=act, **more)
