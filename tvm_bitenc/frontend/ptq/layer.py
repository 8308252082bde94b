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
    weight : ndarray of float32, shape (out_channels, in_channels / groups, *kernel_size)
        Without kernel size for a dense layer; of a transposed convolution too, output channels
        come first.
    bias : ndarray of float32, shape (out_channels,), optional
    strides, dilation : tuple of int
        One number per spatial axis.
    padding : tuple of int
        In front of every spatial axis, then behind them: (top, left, bottom, right).
    groups : int
    output_padding : tuple of int, optional
        Makes the layer a transposed convolution.
    """

    name: str
    input: str
    output: str
    weight: np.ndarray
    bias: np.ndarray | None = None
    strides: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    output_padding: tuple[int, ...] | None = None

    @property
    def spatial_axes(self) -> int:
        """Axes of the kernel; 0 for a matrix product."""
        return self.weight.ndim - 2

    @property
    def is_dense(self) -> bool:
        """Whether it is a matrix product, not a convolution."""
        return self.spatial_axes == 0

    @property
    def is_transposed(self) -> bool:
        """Whether it is a transposed convolution."""
        return self.output_padding is not None

    @property
    def kind(self) -> str:
        """Word for reports."""
        if self.is_dense:
            return "dense"
        if self.groups == len(self.weight) > 1:
            return "depthwise"
        return f"conv{self.spatial_axes}d" + ("_transpose" if self.is_transposed else "")

    @property
    def out_channels(self) -> int:  # noqa: D102
        return len(self.weight)

    @property
    def pads(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Padding in front of each spatial axis, and behind."""
        return self.padding[: self.spatial_axes], self.padding[self.spatial_axes :]

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the layer's sums, without bias, with any weight."""
        if self.is_dense:
            return functional.linear(x, weight)
        before, after = self.pads
        if self.is_transposed:
            return self._apply_transposed(x, weight)
        if before != after:
            # torch lists pads from the last axis on.
            pads = [pad for pair in zip(before[::-1], after[::-1]) for pad in pair]
            x, before = functional.pad(x, pads), (0,) * self.spatial_axes
        convolution = functional.conv1d if self.spatial_axes == 1 else functional.conv2d
        return convolution(x, weight, None, self.strides, before, self.dilation, self.groups)

    def _apply_transposed(self, x: Tensor, weight: Tensor) -> Tensor:
        """Transposed, padding takes away from the output."""
        convolution = (functional.conv_transpose1d, functional.conv_transpose2d)[
            self.spatial_axes - 1
        ]
        y = convolution(
            x,
            weight.transpose(0, 1),
            None,
            self.strides,
            0,
            self.output_padding or 0,
            self.groups,
            self.dilation,
        )
        for axis, (before, after) in enumerate(zip(*self.pads), 2):
            y = y.narrow(axis, before, y.shape[axis] - before - after)
        return y

    def per_channel(self, values: np.ndarray) -> Tensor:
        """One number per output channel as a tensor that broadcasts over the sums."""
        shape = (-1, *[1] * self.spatial_axes)
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).reshape(shape)

    def channel_means(self, y: Tensor) -> Tensor:
        """Mean of sums per output channel, float64."""
        return y.mean(self._other_axes(y), dtype=torch.float64)

    def without_means(self, y: Tensor) -> Tensor:
        """Sums less their mean per output channel, which bias correction takes away."""
        return y - y.mean(self._other_axes(y), keepdim=True)

    def _other_axes(self, y: Tensor) -> list[int]:
        channels = y.ndim - 1 if self.is_dense else 1
        return [axis for axis in range(y.ndim) if axis != channels]


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
