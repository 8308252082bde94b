"""Networks as people build them, of layers of `tvm_bitenc.nn`: the zoo of `test_networks.py`."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.models import NETWORKS
from tvm_bitenc.nn import (
    QActivation,
    QConv1d,
    QConv2d,
    QConvTranspose2d,
    QLinear,
    QMatMul,
    ResNet18,
)

BITS = dict(weight_bits=2, act_bits=2)
PIXELS = dict(weight_bits=8, act_bits=8, act_kind="tanh")


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch-norms statistics as after training, gammas of both signs; in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for part in model.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            part.running_mean.normal_(0, 0.2, generator=generator)
            part.running_var.uniform_(0.2, 2, generator=generator)
            nn.init.normal_(part.weight, 0.7, 0.6, generator=generator)
            nn.init.normal_(part.bias, 0.3, 0.3, generator=generator)
    return model.eval()


class ConvNormAct(nn.Sequential):
    """Convolution, batch-norm, activation."""

    def __init__(
        self, in_channels, out_channels, kernel_size=3, stride=1, groups=1, act=nn.ReLU, bits=BITS
    ):
        convolution = QConv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            kernel_size // 2,
            groups=groups,
            bias=False,
            **bits,
        )
        super().__init__(convolution, nn.BatchNorm2d(out_channels), act())


class InvertedResidual(nn.Module):
    """Expand, depthwise, project: the block of MobileNetV2."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expand: int):
        super().__init__()
        hidden = in_channels * expand
        self.is_residual = stride == 1 and in_channels == out_channels
        self.body = nn.Sequential(
            ConvNormAct(in_channels, hidden, 1, act=nn.ReLU6),
            ConvNormAct(hidden, hidden, 3, stride, groups=hidden, act=nn.ReLU6),
            ConvNormAct(hidden, out_channels, 1, act=nn.Identity),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return x + y if self.is_residual else y


class MobileNetV2(nn.Module):
    """Sandler et al., 2018, with fewer blocks where `repeats` says so."""

    def __init__(self, width: float = 1.0, repeats=(1, 2, 3, 4, 3, 3, 1), num_classes: int = 10):
        super().__init__()
        stages = zip((16, 24, 32, 64, 96, 160, 320), repeats, (1, 2, 2, 2, 1, 2, 1))
        channels = int(32 * width)
        blocks = [ConvNormAct(3, channels, 3, 2, act=nn.ReLU6, bits=PIXELS)]
        for i, (out_channels, count, stride) in enumerate(stages):
            for j in range(count):
                out = int(out_channels * width)
                block = InvertedResidual(channels, out, 1 if j else stride, 6 if i else 1)
                blocks.append(block)
                channels = out
        self.features = nn.Sequential(*blocks, ConvNormAct(channels, 4 * channels, 1))
        self.classifier = QLinear(4 * channels, num_classes, weight_bits=8, act_bits=8)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class VGG(nn.Module):
    """Simonyan and Zisserman, 2014: numbers are channels, "M" is a max pooling."""

    def __init__(self, plan=(16, "M", 32, "M", 64, 64, "M"), size: int = 16, num_classes: int = 10):
        super().__init__()
        channels, bits, blocks = 3, PIXELS, []
        for item in plan:
            if item == "M":
                blocks.append(nn.MaxPool2d(2))
                size //= 2
                continue
            blocks.append(ConvNormAct(channels, item, bits=bits))
            channels, bits = item, BITS
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            QLinear(channels * size**2, 4 * channels, **BITS),
            nn.ReLU(),
            QLinear(4 * channels, num_classes, weight_bits=8, act_bits=8),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class UNet(nn.Module):
    """Ronneberger et al., 2015: upsampling by transposed convolutions, or nearest pixels."""

    def __init__(self, width: int = 16, depth: int = 2, transposed: bool = True, classes: int = 3):
        super().__init__()
        channels = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            _double(a, b, PIXELS if a == 3 else BITS) for a, b in zip([3, *channels], channels)
        )
        self.pool = nn.MaxPool2d(2)
        pairs = list(zip(channels[:0:-1], channels[-2::-1]))
        self.raise_ = nn.ModuleList(_upsampling(a, b, transposed) for a, b in pairs)
        self.up = nn.ModuleList(_double(2 * b, b, BITS) for _, b in pairs)
        self.head = QConv2d(width, classes, 1, **BITS)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.down:
            x = block(self.pool(x) if skips else x)
            skips.append(x)
        for raised, block, skip in zip(self.raise_, self.up, skips[-2::-1]):
            x = block(torch.cat([skip, raised(x)], dim=1))
        return self.head(x)


def _double(in_channels: int, out_channels: int, bits: dict) -> nn.Sequential:
    return nn.Sequential(
        ConvNormAct(in_channels, out_channels, bits=bits), ConvNormAct(out_channels, out_channels)
    )


def _upsampling(in_channels: int, out_channels: int, transposed: bool) -> nn.Module:
    if transposed:
        return QConvTranspose2d(in_channels, out_channels, 2, 2, **BITS)
    return nn.Sequential(nn.Upsample(scale_factor=2), ConvNormAct(in_channels, out_channels))


class SSD(nn.Module):
    """Liu et al., 2015: class scores and boxes from feature maps of several sizes."""

    def __init__(self, width: int = 16, classes: int = 4, anchors: int = 3, maps: int = 3):
        super().__init__()
        channels = [width * 2**stage for stage in range(maps)]
        self.classes = classes
        self.stem = ConvNormAct(3, width, 3, 2, bits=PIXELS)
        self.stages = nn.ModuleList(
            ConvNormAct(a, b, 3, 2) for a, b in zip([width, *channels], channels)
        )
        heads = [classes * anchors, 4 * anchors]
        self.scores, self.boxes = (
            nn.ModuleList(QConv2d(c, out, 3, padding=1, **BITS) for c in channels) for out in heads
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x, scores, boxes = self.stem(x), [], []
        for stage, score, box in zip(self.stages, self.scores, self.boxes):
            x = stage(x)
            scores.append(_rows(score(x), self.classes))
            boxes.append(_rows(box(x), 4))
        return torch.softmax(torch.cat(scores, 1), -1), torch.cat(boxes, 1)


def _rows(feature_map: Tensor, columns: int) -> Tensor:
    return feature_map.permute(0, 2, 3, 1).reshape(len(feature_map), -1, columns)


class ShuffleNet(nn.Module):
    """Units of ShuffleNetV2 (Ma et al., 2018): half of the channels pass, then both are mixed."""

    def __init__(self, width: int = 32, units: int = 2, num_classes: int = 10):
        super().__init__()
        self.stem = ConvNormAct(3, width, 3, 2, bits=PIXELS)
        half = width // 2
        self.units = nn.ModuleList(
            nn.Sequential(
                ConvNormAct(half, half, 1),
                ConvNormAct(half, half, 3, groups=half, act=nn.Identity),
                ConvNormAct(half, half, 1),
            )
            for _ in range(units)
        )
        self.head = QConv2d(width, num_classes, 1, **BITS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for unit in self.units:
            kept, changed = x.chunk(2, 1)
            x = functional.channel_shuffle(torch.cat([kept, unit(changed)], 1), 2)
        return self.head(x)


class DenseNet(nn.Module):
    """Huang et al., 2016: each layer has a batch-norm of its own over all that was made so far."""

    def __init__(self, growth: int = 8, layers: int = 3, num_classes: int = 10):
        super().__init__()
        self.stem = ConvNormAct(3, 2 * growth, bits=PIXELS)
        widths = [growth * (2 + i) for i in range(layers + 1)]
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.convs = nn.ModuleList(QConv2d(w, growth, 3, padding=1, **BITS) for w in widths[:-1])
        self.head = QConv2d(widths[-1], num_classes, 1, **BITS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs):
            x = torch.cat([x, conv(torch.relu(norm(x)))], 1)
        return self.head(torch.relu(self.norms[-1](x)))


class SqueezeExcite(nn.Module):
    """Hu et al., 2017: channels are weighed by numbers that stay float."""

    def __init__(self, channels: int = 16):
        super().__init__()
        self.stem = ConvNormAct(3, channels, bits=PIXELS)
        self.squeeze = QConv2d(channels, channels // 4, 1, **BITS)
        self.excite = nn.Conv2d(channels // 4, channels, 1)
        self.head = QConv2d(channels, 8, 3, padding=1, **BITS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        pooled = self.squeeze(x.mean((2, 3), keepdim=True))
        return self.head(x * torch.sigmoid(self.excite(torch.relu(pooled)))).softmax(1)


class Attention(nn.Module):
    """One head of attention over patches of an image, all of its products quantized."""

    def __init__(self, channels: int = 16):
        super().__init__()
        self.patches = QConv2d(3, channels, 4, 4, **PIXELS)
        self.query, self.key, self.value = (
            QLinear(channels, channels, weight_bits=2, act_bits=3, act_kind="tanh")
            for _ in range(3)
        )
        self.scores = QMatMul(4)
        self.mix = QMatMul(first=QActivation(4, "relu"), second=QActivation(4, "tanh"))
        self.out = QLinear(channels, channels, **BITS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        scores = self.scores(self.query(x), self.key(x).transpose(1, 2))
        return x + self.out(self.mix(torch.softmax(scores, -1), self.value(x)))


class Audio(nn.Module):
    """One-dimensional convolutions: strided, dilated, depthwise."""

    def __init__(self, width: int = 16, classes: int = 5):
        super().__init__()
        self.layers = nn.Sequential(
            QConv1d(2, width, 9, 4, 4, **PIXELS),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            QConv1d(width, width, 3, padding=2, dilation=2, groups=width, **BITS),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.MaxPool1d(2),
            QConv1d(width, classes, 3, **BITS),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


IMAGE, SOUND = (2, 3, 16, 16), (2, 2, 64)
# A function that makes each network, and the shape of its input. Small enough for every run,
SMALL = {
    "mobilenetv2": (lambda: MobileNetV2(0.5, (1, 2, 0, 0, 0, 0, 0)), (1, 3, 16, 16)),
    "unet": (lambda: UNet(depth=1), IMAGE),
    "attention": (Attention, IMAGE),
    "audio": (Audio, SOUND),
}
# for the long run, as they take longer to compile,
SLOW = {
    "small ssd": (lambda: SSD(maps=2), (1, 3, 32, 32)),
    "small vgg": (lambda: VGG((16, "M", 32, 32, "M")), IMAGE),
    "small resnet18": (lambda: ResNet18(2, 2, num_classes=10, width=16), (1, 3, 32, 32)),
    "deeper unet": (UNet, IMAGE),
    "unet with nearest upsampling": (lambda: UNet(transposed=False), IMAGE),
    "shufflenet": (ShuffleNet, IMAGE),
    "densenet": (DenseNet, IMAGE),
}
# and of their real size, those that are timed first.
LARGE = {
    **{name: (partial(network.make, 2, 2), network.shape) for name, network in NETWORKS.items()},
    "vgg": (lambda: VGG((64, 64, "M", 128, 128, "M", 256, 256, 256, "M"), 64), (1, 3, 64, 64)),
    "unet with transposed convolutions": (lambda: UNet(32, 3), (1, 3, 96, 96)),
    "ssd": (lambda: SSD(64, 21, maps=4), (1, 3, 160, 160)),
}
