"""What a quantized torch model is made of: each part exports, and compiles without a difference."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...encoding import Encoding
from ...nn.quantize_op import quantize
from .layer import QuantizedLayer

STEP = 2.0  # Between neighbouring integers v + o.


class InputQuantizer(nn.Module):
    """Rounds a tensor to the integers v + o of its encoding.

    Parameters
    ----------
    act : Encoding
    factor : float
        2 / s.
    """

    factor: Tensor
    zero_point: Tensor
    step: Tensor

    def __init__(self, act: Encoding, factor: np.float32):
        super().__init__()
        self.bits = act.bits
        self.register_buffer("factor", torch.tensor(float(factor)))
        self.register_buffer("zero_point", torch.tensor(float(act.zero_point)))
        self.register_buffer("step", torch.tensor(STEP))

    def forward(self, x: Tensor) -> Tensor:
        """Integers as float32, same shape."""
        return quantize(x * self.factor, self.step, self.zero_point, self.bits)

    def extra_repr(self) -> str:
        """Arguments for `repr`."""
        return f"bits={self.bits}, scale={STEP / float(self.factor):.4g}"


class _IntegerLayer(nn.Module):
    """What all layers share: integer weights, scale and bias."""

    weight: Tensor
    zero_point: Tensor
    step: Tensor
    out_scale: Tensor
    bias: Tensor | None

    def __init__(self, quantized: QuantizedLayer):
        super().__init__()
        layer, weight = quantized.layer, quantized.weight
        self.bits = weight.bits
        self.register_buffer("weight", torch.from_numpy(quantized.weight_integers))
        self.register_buffer("zero_point", torch.tensor(float(weight.zero_point)))
        self.register_buffer("step", torch.tensor(STEP))
        self.register_buffer("out_scale", layer.per_channel(quantized.out_scale))
        bias = None if quantized.bias is None else layer.per_channel(quantized.bias)
        self.register_buffer("bias", bias)

    def weight_integers(self) -> Tensor:
        """v + o of the weight; the quantizer changes nothing and tells the compiler its bits."""
        return quantize(self.weight, self.step, self.zero_point, self.bits)

    def _finish(self, sums: Tensor) -> Tensor:
        y = sums * self.out_scale
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """Arguments for `repr`."""
        return f"{tuple(self.weight.shape)}, bits={self.bits}"


class IntegerConv(_IntegerLayer):
    """Convolution over 1 or 2 axes of integers v + o with integer weights, then scale and bias."""

    def __init__(self, quantized: QuantizedLayer):
        super().__init__(quantized)
        layer = quantized.layer
        self.convolution = (functional.conv1d, functional.conv2d)[layer.spatial_axes - 1]
        self.stride, self.dilation, self.groups = layer.strides, layer.dilation, layer.groups
        before, after = layer.pads
        self.padding = before if before == after else 0
        # torch lists pads from the last axis on.
        pairs = zip(before[::-1], after[::-1])
        self.pad = None if before == after else [pad for pair in pairs for pad in pair]

    def forward(self, integers: Tensor) -> Tensor:
        """Float32 (N, out_channels, ...) from integers (N, in_channels, ...)."""
        if self.pad is not None:
            integers = functional.pad(integers, self.pad)
        weight = self.weight_integers()
        return self._finish(
            self.convolution(
                integers, weight, None, self.stride, self.padding, self.dilation, self.groups
            )
        )


class IntegerConvTranspose(_IntegerLayer):
    """Transposed convolution of integers with integer weights, then scale and bias."""

    def __init__(self, quantized: QuantizedLayer):
        super().__init__(quantized)
        layer = quantized.layer
        self.weight = self.weight.transpose(0, 1).contiguous()
        self.convolution = (functional.conv_transpose1d, functional.conv_transpose2d)[
            layer.spatial_axes - 1
        ]
        self.stride, self.dilation = layer.strides, layer.dilation
        self.padding, self.output_padding = layer.pads[0], layer.output_padding or 0

    def forward(self, integers: Tensor) -> Tensor:
        """Float32 (N, out_channels, ...) from integers (N, in_channels, ...)."""
        return self._finish(
            self.convolution(
                integers,
                self.weight_integers(),
                None,
                self.stride,
                self.padding,
                self.output_padding,
                1,
                self.dilation,
            )
        )


class IntegerLinear(_IntegerLayer):
    """Matrix product of integers v + o with integer weights, then scale and bias."""

    def forward(self, integers: Tensor) -> Tensor:
        """Float32 (..., out_features) from integers (..., in_features)."""
        return self._finish(functional.linear(integers, self.weight_integers()))


def integer_layer(quantized: QuantizedLayer) -> nn.Module:
    """Module of a quantized layer."""
    layer = quantized.layer
    if layer.is_dense:
        return IntegerLinear(quantized)
    return (IntegerConvTranspose if layer.is_transposed else IntegerConv)(quantized)
