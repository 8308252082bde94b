"""Networks for tutorials, tests and benchmarks, one file each."""

from .digits import DigitsCNN
from .resnet import ResNet18

__all__ = ["DigitsCNN", "ResNet18"]
