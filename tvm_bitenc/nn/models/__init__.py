"""Networks for tutorials, tests and benchmarks, one file each."""

from .digits import DigitsCNN
from .fashion import FashionNet
from .resnet import ResNet18

__all__ = ["DigitsCNN", "FashionNet", "ResNet18"]
