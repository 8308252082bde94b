"""VGG-16: one convolution behind another, and no way around any."""

from __future__ import annotations

from torch import Tensor, nn

from .parts import ConvNormAct, ends, linear, pair

CHANNELS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(nn.Module):
    """Thirteen 3x3 convolutions, a maximum behind each size (Simonyan and Zisserman, 2014).

    The mean of all pixels takes the place of the first two dense layers. The first and the last
    layer have 8 bits.
    """

    def __init__(self, weight_bits: int | None, act_bits: int | None, *, classes: int = 1000):
        super().__init__()
        bits, layers, before = pair(weight_bits, act_bits), list[nn.Module](), 3
        for stage in CHANNELS:
            for channels in stage:
                is_first = not layers
                own = ends(bits) if is_first else bits
                layers.append(ConvNormAct(own, before, channels, 3, signed=is_first))
                before = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.head = linear(ends(bits), before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of float32 images (N, 3, 224, 224)."""
        return self.head(self.features(x).mean((2, 3)))
