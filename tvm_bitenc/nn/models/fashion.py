"""A residual network for Fashion-MNIST's 28x28 images, at any bits, with tiles or codewords."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from ..codebook import CodebookConv2d
from ..layers import QActivation, QConv2d, QLinear

INPUT_RANGES = {1: 1.0, 2: 2.0, 3: 2.5}  # By bits, 3.0 for more: the least error on a Gaussian.
TILED_FROM = 20_000  # Weights of a layer: smaller ones aren't tiled, as in Tiled Bit Networks.


class FashionNet(nn.Module):
    """A 5x5 convolution of stride 2, three residual 3x3 ones, and a classifier of 7x7 positions.

    Parameters
    ----------
    options : dict, optional
        Keyword arguments of the `QConv2d` or `CodebookConv2d` that the 3x3 convolutions are, such
        as ``weight_bits=1, act_bits=2, tiles=4`` or ``codewords=32, act_bits=2``. The first layer
        and the classifier have 8 bits, as is usual; the smallest 3x3 one isn't tiled. None: the
        float twin with ReLU, of the same parameter names.
    """

    def __init__(self, options: dict[str, Any] | None = None):
        super().__init__()
        if options is None:
            self.first: nn.Module = nn.Conv2d(1, 32, 5, 2, 2, bias=False)
            self.classifier: nn.Module = nn.Linear(64 * 7 * 7, 10)
        else:
            self.first = QConv2d(1, 32, 5, 2, 2, bias=False, weight_bits=8, act_bits=8)
            act = QActivation(8, input_range=4.0)
            self.classifier = QLinear(64 * 7 * 7, 10, weight_bits=8, act=act)
        self.norm = nn.BatchNorm2d(32)
        self.blocks = nn.Sequential(
            Block(32, 64, options, 2), Block(64, 64, options), Block(64, 64, options)
        )
        self.last = nn.BatchNorm2d(64)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 10) from float32 images (N, 1, 28, 28) in 0..1."""
        x = self.last(self.blocks(self.norm(self.first(x))))
        return self.classifier(functional.relu(x).flatten(1))


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
        window = (channels, out_channels, 3, stride, 1)
        if options is None:
            self.conv: nn.Module = nn.Conv2d(*window, bias=False)
        else:
            bits, more = options["act_bits"], {k: v for k, v in options.items() if k != "act_bits"}
            if channels * out_channels * 9 < TILED_FROM:
                more.pop("tiles", None)
            layer = CodebookConv2d if "codewords" in options else QConv2d
            act = QActivation(bits, input_range=INPUT_RANGES.get(bits, 3.0))
            self.conv = layer(*window, bias=False, act=act, **more)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shrink = nn.AvgPool2d(2) if stride == 2 else nn.Identity()
        self.copies = out_channels // channels

    def forward(self, x: Tensor) -> Tensor:
        """Float32 (N, out_channels, H / stride, W / stride)."""
        y = self.norm2(self.conv(self.act(self.norm1(x))))
        return y + self.shrink(x).repeat(1, self.copies, 1, 1)
