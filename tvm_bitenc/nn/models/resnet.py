"""ResNet-18 for ImageNet's shapes, in float or with a body of few bits."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..layers import QActivation, QConv2d, QLinear

Options = dict[str, Any]  # Keyword arguments of layers that quantize.

# Whitest pixel of ImageNet's usual normalisation, (1 - 0.406) / 0.225; the blackest is at -2.12.
NORMALISED_PIXEL_MAX = 2.64


class ResNet18(nn.Module):
    """Four stages of two basic blocks behind a 7x7 stem (He et al., 2015).

    As is usual, the stem and the classifier have 8 bits; `weight_bits` and `act_bits` are those of
    every 3x3 convolution and of the 1x1 convolutions on the shortcuts. Each of those quantizes its
    own input, so the shortcuts themselves carry floats, as in DoReFa-Net and Bi-Real Net.

    Compiled, every number up to the average pool is torch's, bit for bit. The pool is TVM's and may
    sum in another order, one rounding away from torch's, before the classifier quantizes it.

    Parameters
    ----------
    weight_bits, act_bits : int or None
        1..8. None for both: the float twin with ReLU, with the same parameter names (see
        `init_from`).
    num_classes : int
    width : int
        Channels of the first stage; each further stage has twice as many.
    pixel_max : float
        The stem takes pixels in [-pixel_max, pixel_max] in 256 symmetric levels and clips others.
        The default holds every image that was normalised with ImageNet's mean and deviation.

    Raises
    ------
    ValueError
        For bits outside 1..8, or None for one of them only.
    """

    def __init__(
        self,
        weight_bits: int | None = 1,
        act_bits: int | None = 1,
        num_classes: int = 1000,
        *,
        width: int = 64,
        pixel_max: float = NORMALISED_PIXEL_MAX,
    ):
        super().__init__()
        if (weight_bits is None) != (act_bits is None):
            raise ValueError("ResNet18: None for one of weight_bits, act_bits. Use it for both.")
        is_float = weight_bits is None
        stem: Options = {}
        body: Options = {}
        head: Options = {}
        if not is_float:
            stem = dict(weight_bits=8, act=QActivation(8, "tanh", input_range=pixel_max))
            body = dict(weight_bits=weight_bits, act_bits=act_bits)
            head = dict(weight_bits=8, act_bits=8)
        conv: type[nn.Conv2d] = nn.Conv2d if is_float else QConv2d
        linear: type[nn.Linear] = nn.Linear if is_float else QLinear
        self.conv1 = conv(3, width, 7, 2, 3, bias=False, **stem)
        self.bn1 = nn.BatchNorm2d(width)
        self.act = nn.ReLU() if is_float else nn.Identity()
        self.pool1 = nn.MaxPool2d(3, 2, 1)
        channels = [width * 2**stage for stage in range(4)]
        self.stage1 = _stage(width, channels[0], 1, body)
        self.stage2 = _stage(channels[0], channels[1], 2, body)
        self.stage3 = _stage(channels[1], channels[2], 2, body)
        self.stage4 = _stage(channels[2], channels[3], 2, body)
        self.pool2 = nn.AdaptiveAvgPool2d(1)
        self.classifier = linear(channels[3], num_classes, **head)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes) from float32 images (N, 3, H, W), normalised."""
        x = self.pool1(self.act(self.bn1(self.conv1(x))))
        x = self.stage4(self.stage3(self.stage2(self.stage1(x))))
        return self.classifier(self.pool2(x).flatten(1))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch-norm, and a float shortcut around them.

    Parameters
    ----------
    in_channels, out_channels, stride : int
        Where they change size or channels, the shortcut has a 1x1 convolution with batch-norm.
    quantizers : dict
        Keyword arguments of `QConv2d`; empty for float convolutions and ReLU.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, quantizers: dict[str, Any]
    ):
        super().__init__()
        conv: type[nn.Conv2d] = QConv2d if quantizers else nn.Conv2d
        self.conv1 = conv(in_channels, out_channels, 3, stride, 1, bias=False, **quantizers)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv(out_channels, out_channels, 3, 1, 1, bias=False, **quantizers)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.act = nn.Identity() if quantizers else nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                conv(in_channels, out_channels, 1, stride, bias=False, **quantizers),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Float32 (N, out_channels, H / stride, W / stride)."""
        y = self.act(self.bn1(self.conv1(x)))
        return self.act(self.bn2(self.conv2(y)) + self.shortcut(x))


def _stage(
    in_channels: int, out_channels: int, stride: int, quantizers: dict[str, Any]
) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(in_channels, out_channels, stride, quantizers),
        BasicBlock(out_channels, out_channels, 1, quantizers),
    )
