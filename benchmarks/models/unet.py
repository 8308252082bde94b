"""A small UNet: features of every size meet those of the same size on the way up."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .parts import Bits, ConvNormAct, conv, ends, pair


class UNet(nn.Module):
    """Two 3x3 convolutions for each size, down and up (Ronneberger et al., 2015).

    On the way up nearest pixels are repeated. The first and the last layer have 8 bits.
    """

    def __init__(
        self,
        weight_bits: int | None,
        act_bits: int | None,
        *,
        width: int = 32,
        depth: int = 2,
        classes: int = 11,
    ):
        super().__init__()
        bits = pair(weight_bits, act_bits)
        channels = [width * 2**level for level in range(depth + 1)]
        self.stem = ConvNormAct(ends(bits), 3, width, 3, signed=True)
        self.down = nn.ModuleList(_double(bits, a, b) for a, b in zip([width, *channels], channels))
        pairs = zip(channels[:0:-1], channels[-2::-1])
        self.up = nn.ModuleList(_double(bits, below + beside, beside) for below, beside in pairs)
        self.pool, self.upsample = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)
        self.head = conv(ends(bits), width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes, H, W) of the pixels of float32 images (N, 3, H, W)."""
        x, skips = self.stem(x), []
        for block in self.down:
            x = block(self.pool(x) if skips else x)
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1]):
            x = block(torch.cat([skip, self.upsample(x)], 1))
        return self.head(x)


def _double(bits: Bits | None, in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        ConvNormAct(bits, in_channels, out_channels, 3),
        ConvNormAct(bits, out_channels, out_channels, 3),
    )
