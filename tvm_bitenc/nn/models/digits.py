"""A small network for scikit-learn's 8x8 digits, for tutorials and tests."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..layers import QActivation, QConv2d, QLinear

PIXEL_MAX = 16.0


class DigitsCNN(nn.Module):
    """Three 3x3 convolutions of 64 channels with batch-norm, and a linear classifier.

    As is usual, the first convolution and the classifier have 8 bits; `weight_bits` and
    `act_bits` are those of the two convolutions between, where nearly all the work is. Batch-norm
    and max pooling feed the next layer as they are, for that layer clips and quantizes its input.

    Parameters
    ----------
    weight_bits, act_bits : int or None
        1..8. None for both: the float twin, with the same parameter names (see `init_from`).

    Raises
    ------
    ValueError
        For bits outside 1..8, or None for one of them only.
    """

    def __init__(self, weight_bits: int | None = 2, act_bits: int | None = 2):
        super().__init__()
        if (weight_bits is None) != (act_bits is None):
            raise ValueError("DigitsCNN: None for one of weight_bits, act_bits. Use it for both.")
        is_float = weight_bits is None
        first: dict[str, Any] = {}
        body: dict[str, Any] = {}
        last: dict[str, Any] = {}
        if not is_float:
            first = dict(weight_bits=8, act=QActivation(8, "relu", input_range=PIXEL_MAX))
            body = dict(weight_bits=weight_bits, act_bits=act_bits)
            last = dict(weight_bits=8, act_bits=8)
        conv: type[nn.Conv2d] = nn.Conv2d if is_float else QConv2d
        linear: type[nn.Linear] = nn.Linear if is_float else QLinear
        self.conv1 = conv(1, 64, 3, padding=1, bias=False, **first)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = conv(64, 64, 3, padding=1, bias=False, **body)
        self.bn2 = nn.BatchNorm2d(64)
        self.conv3 = conv(64, 64, 3, padding=1, bias=False, **body)
        self.bn3 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(2)
        self.act = nn.ReLU() if is_float else nn.Identity()
        self.classifier = linear(64 * 2 * 2, 10, bias=False, **last)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 10) from float32 pixels 0..16 of shape (N, 1, 8, 8)."""
        x = self.act(self.bn1(self.conv1(x)))
        x = self.act(self.pool(self.bn2(self.conv2(x))))
        x = self.act(self.pool(self.bn3(self.conv3(x))))
        return self.classifier(x.flatten(1))
