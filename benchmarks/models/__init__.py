"""The networks that are timed, and their float twins, from which all contenders are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from tvm_bitenc.nn import ResNet18, init_from

from .chain import MLP, ConvChain
from .mobilenet_v2 import MobileNetV2
from .mobilenet_v3 import MobileNetV3Small
from .parts import Bits
from .transformer import TransformerBlock
from .unet import UNet


@dataclass(frozen=True)
class Network:
    """A network that takes one float32 array and returns one.

    Parameters
    ----------
    make : callable
        Makes it from bits of weights and of activations; both None make the float twin.
    shape : tuple of int
        Of its input.
    """

    make: Callable[[int | None, int | None], nn.Module]
    shape: tuple[int, ...]

    def twin(self, seed: int = 0) -> nn.Module:
        """Make the float network, with batch-norms as they are after training; in eval mode.

        Their statistics are those of random inputs. Scales and shifts are random, so that nothing
        can be left out that a trained network has.
        """
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        model = self.make(None, None)
        for part in model.modules():
            if isinstance(part, (nn.BatchNorm2d, nn.LayerNorm)):
                nn.init.uniform_(part.weight, 0.5, 1.5, generator=generator)
                nn.init.normal_(part.bias, 0, 0.2, generator=generator)
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 1.0
        with torch.no_grad():
            model.train()(torch.randn(self.shape, generator=generator))
        return model.eval()

    def quantized(self, bits: Bits, twin: nn.Module) -> nn.Module:
        """Make the network of few bits with the twin's weights, in eval mode."""
        return init_from(self.make(*bits), twin).eval()


IMAGENET = (1, 3, 224, 224)

NETWORKS: Mapping[str, Network] = {
    "ResNet-18": Network(ResNet18, IMAGENET),
    "3x3 chain": Network(partial(ConvChain, layers=6, channels=64, kernel_size=3), (1, 64, 56, 56)),
    "1x1 chain": Network(
        partial(ConvChain, layers=12, channels=256, kernel_size=1), (1, 256, 28, 28)
    ),
    "transformer block": Network(TransformerBlock, (1, 128, 384)),
    "MLP": Network(MLP, (128, 768)),
    "UNet": Network(UNet, (1, 3, 128, 128)),
    "MobileNetV2": Network(MobileNetV2, IMAGENET),
    "MobileNetV3-small": Network(MobileNetV3Small, (1, 3, 96, 96)),
}
