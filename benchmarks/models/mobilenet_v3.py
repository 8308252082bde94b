"""The small MobileNetV3: hard-swish, and squeeze-and-excite."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .parts import Bits, ConvNormAct, conv, ends, linear, pair, rectifier

# Kernel size, channels inside, channels out, squeeze-and-excite, hard-swish, stride.
SMALL_V3 = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)


class MobileNetV3Small(nn.Module):
    """Howard et al., 2019. The first and the last layer and squeeze-and-excite have 8 bits."""

    def __init__(
        self,
        weight_bits: int | None,
        act_bits: int | None,
        *,
        plan: Sequence[tuple] = SMALL_V3,
        classes: int = 1000,
    ):
        super().__init__()
        bits = pair(weight_bits, act_bits)
        channels = 16
        blocks = [ConvNormAct(ends(bits), 3, channels, 3, 2, act=nn.Hardswish(), signed=True)]
        for kernel_size, hidden, out_channels, squeeze, swish, stride in plan:
            shape = (channels, hidden, out_channels, kernel_size, stride)
            blocks.append(Bottleneck(bits, *shape, squeeze, swish))
            channels = out_channels
        last = ConvNormAct(bits, channels, 6 * channels, act=nn.Hardswish(), signed=True)
        self.features = nn.Sequential(*blocks, last)
        self.classifier = nn.Sequential(
            linear(bits, 6 * channels, 1024, signed=True),
            nn.Hardswish(),
            linear(ends(bits), 1024, classes, signed=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) from float32 images (N, 3, H, W)."""
        return self.classifier(self.features(x).mean((2, 3)))


class Bottleneck(nn.Module):
    """Expand, depthwise, squeeze and excite, project; a shortcut where the shape stays."""

    def __init__(
        self,
        bits: Bits | None,
        in_channels: int,
        hidden: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        squeeze: bool,
        swish: bool,
    ):
        super().__init__()
        expands = hidden != in_channels
        self.is_residual = stride == 1 and in_channels == out_channels
        self.expand = (
            ConvNormAct(bits, in_channels, hidden, act=_activation(bits, swish), signed=True)
            if expands
            else nn.Identity()
        )
        self.depthwise = ConvNormAct(
            bits,
            hidden,
            hidden,
            kernel_size,
            stride,
            groups=hidden,
            act=_activation(bits, swish),
            signed=swish or not expands,
        )
        self.excite = SqueezeExcite(bits, hidden) if squeeze else nn.Identity()
        self.project = ConvNormAct(bits, hidden, out_channels, act=nn.Identity(), signed=swish)

    def forward(self, x: Tensor) -> Tensor:
        """Float32 (N, out_channels, H / stride, W / stride)."""
        y = self.project(self.excite(self.depthwise(self.expand(x))))
        return x + y if self.is_residual else y


class SqueezeExcite(nn.Module):
    """Weigh channels by what the means of all of them say (Hu et al., 2017)."""

    def __init__(self, bits: Bits | None, channels: int):
        super().__init__()
        squeezed = max(8, (channels // 4 + 4) // 8 * 8)
        self.squeeze = conv(ends(bits), channels, squeezed, 1, signed=True)
        self.excite = conv(ends(bits), squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Float32, shape of x: (N, channels, H, W)."""
        means = x.mean((2, 3), keepdim=True)
        return x * functional.hardsigmoid(self.excite(torch.relu(self.squeeze(means))))


def _activation(bits: Bits | None, swish: bool) -> nn.Module:
    return nn.Hardswish() if swish else rectifier(bits, nn.ReLU())
