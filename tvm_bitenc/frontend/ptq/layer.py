"""One convolution or dense layer: as the float model has it, and quantized."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...encoding import Encoding


@dataclass(frozen=True, eq=False)
class Layer:
    """A float convolution or dense layer that can be quantized.

    Parameters
    ----------
    name : str
    input, output : str
        Names of the tensors it reads and writes.
    weight : ndarray of float32, shape (out_channels, in_channels / groups, KH, KW) or (out, in)
    bias : ndarray of float32, shape (out_channels,), optional
    strides, dilation : (height, width)
    padding : (top, left, bottom, right)
    groups : int
    """

    name: str
    input: str
    output: str
    weight: np.ndarray
    bias: np.ndarray | None = None
    strides: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def is_dense(self) -> bool:
        """Whether it is a matrix product, not a convolution."""
        return self.weight.ndim == 2

    @property
    def kind(self) -> str:
        """Word for reports."""
        if self.is_dense:
            return "dense"
        return "depthwise" if self.groups == len(self.weight) > 1 else "conv2d"

    @property
    def out_channels(self) -> int:  # noqa: D102
        return len(self.weight)

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the layer's sums, without bias, with any weight."""
        if self.is_dense:
            return functional.linear(x, weight)
        top, left, bottom, right = self.padding
        if (top, left) != (bottom, right):
            x, top, left = functional.pad(x, (left, right, top, bottom)), 0, 0
        return functional.conv2d(
            x, weight, None, self.strides, (top, left), self.dilation, self.groups
        )

    def per_channel(self, values: np.ndarray) -> Tensor:
        """One number per output channel as a tensor that broadcasts over the sums."""
        shape = (-1,) if self.is_dense else (-1, 1, 1)
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).reshape(shape)

    def channel_means(self, y: Tensor) -> Tensor:
        """Mean of sums per output channel, float64."""
        channels = y.ndim - 1 if self.is_dense else 1
        return y.mean([i for i in range(y.ndim) if i != channels], dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class QuantizedLayer:
    """A layer with the encodings of its input and weight.

    It computes ``sums of (v_a + o_a)(v_w + o_w), times out_scale, plus bias``: integers up to the
    sum, so that float arithmetic and branches give the same bits while sums stay below 2^24.

    Parameters
    ----------
    layer : Layer
    act : Encoding
        Per tensor.
    weight : Encoding
        One scale per output channel.
    codes : ndarray of uint8, shaped like the weight
    bias : ndarray of float32, shape (out_channels,), optional
    error : float
        Mean squared error of the layer's own output on calibration data, relative to its power.
    """

    layer: Layer
    act: Encoding
    weight: Encoding
    codes: np.ndarray
    bias: np.ndarray | None
    error: float = 0.0

    @cached_property
    def weight_integers(self) -> np.ndarray:
        """v_w + o_w, float32, shaped like the weight."""
        return self.weight.integers(self.codes).astype(np.float32)

    @property
    def act_factor(self) -> np.float32:
        """What the input is multiplied with before it is rounded to integers v + o: 2 / s_a."""
        return np.float32(2) / self.act.scale

    @property
    def out_scale(self) -> np.ndarray:
        """s_a s_w / 4 per output channel, float32."""
        scale = self.act.scale.astype(np.float64) * self.weight.scale.astype(np.float64) / 4
        return scale.astype(np.float32)

    @property
    def weight_bytes(self) -> int:
        """Size of the codes, packed without gaps."""
        return weight_bytes(self.layer, self.weight.bits)


def weight_bytes(layer: Layer, bits: int) -> int:
    """Size of a layer's weight codes, packed without gaps."""
    return -(-layer.weight.size * bits // 8)
