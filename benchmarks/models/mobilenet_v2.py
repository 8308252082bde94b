"""MobileNetV2: pointwise and depthwise convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .parts import Bits, ConvNormAct, ends, linear, pair, rectifier


class MobileNetV2(nn.Module):
    """Sandler et al., 2018. The first and the last layer have 8 bits.

    `repeats` are the blocks of each stage.
    """

    def __init__(
        self,
        weight_bits: int | None,
        act_bits: int | None,
        *,
        repeats: Sequence[int] = (1, 2, 3, 4, 3, 3, 1),
        classes: int = 1000,
    ):
        super().__init__()
        bits = pair(weight_bits, act_bits)
        stages = zip((16, 24, 32, 64, 96, 160, 320), repeats, (1, 2, 2, 2, 1, 2, 1))
        channels = 32
        blocks = [ConvNormAct(ends(bits), 3, channels, 3, 2, act=_relu6(ends(bits)), signed=True)]
        for i, (out_channels, count, stride) in enumerate(stages):
            for j in range(count):
                shape = (channels, out_channels, 1 if j else stride, 6 if i else 1)
                blocks.append(InvertedResidual(bits, *shape))
                channels = out_channels
        last = ConvNormAct(bits, channels, 1280, act=_relu6(bits), signed=True)
        self.features = nn.Sequential(*blocks, last)
        self.classifier = linear(ends(bits), 1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) from float32 images (N, 3, H, W)."""
        return self.classifier(self.features(x).mean((2, 3)))


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; a shortcut where the shape stays."""

    def __init__(
        self, bits: Bits | None, in_channels: int, out_channels: int, stride: int, expand: int
    ):
        super().__init__()
        hidden = in_channels * expand
        self.is_residual = stride == 1 and in_channels == out_channels
        layers = [
            ConvNormAct(bits, hidden, hidden, 3, stride, groups=hidden, act=_relu6(bits)),
            ConvNormAct(bits, hidden, out_channels, act=nn.Identity()),
        ]
        if expand > 1:
            first = ConvNormAct(bits, in_channels, hidden, act=_relu6(bits), signed=True)
            layers.insert(0, first)
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Float32 (N, out_channels, H / stride, W / stride)."""
        y = self.body(x)
        return x + y if self.is_residual else y


def _relu6(bits: Bits | None) -> nn.Module:
    return rectifier(bits, nn.ReLU6())
