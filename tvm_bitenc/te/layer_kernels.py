"""TE definitions of whole layers: accumulators, then thresholds and packing, or float steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import te

from ..layer import ConvLayer
from .conv2d import xnor_conv2d, xnor_weights
from .float_steps import float_steps
from .int_conv2d import int_conv2d, int_weights
from .lut_conv2d import lut_conv2d, lut_weights
from .pack import pack
from .threshold import threshold

Compute = Callable[..., te.Tensor]  # A TE definition, from input tensors to the output.


def xnor_kernel(layer: ConvLayer, lanes: int) -> tuple[Compute, list[np.ndarray]]:
    """TE definition of the whole layer by xor and popcount, and its constants in order."""
    weights = xnor_weights(layer, lanes)
    constants = [weights, *layer.border, layer.weight_offset]
    return _with_epilogue(xnor_conv2d, constants, layer)


def lut_kernel(layer: ConvLayer) -> tuple[Compute, list[np.ndarray]]:
    """TE definition of the whole layer by table look-up, and its constants in order."""
    constants = [lut_weights(layer), *layer.border, layer.weight_offset]
    return _with_epilogue(lut_conv2d, constants, layer)


def int8_kernel(layer: ConvLayer) -> tuple[Compute, list[np.ndarray]]:
    """TE definition of the whole layer by integer products, and its constants in order."""
    return _with_epilogue(int_conv2d, [int_weights(layer)], layer)


def _with_epilogue(convolve: Callable, constants: list[np.ndarray], layer: ConvLayer):
    """Let thresholds and packing, or float steps, follow the accumulators if the layer has them."""
    if layer.steps:
        return _with_float_steps(convolve, constants, layer)
    if layer.thresholds is None:
        return lambda planes, *tensors: convolve(planes, *tensors, layer), constants

    def compute(planes: te.Tensor, *tensors: te.Tensor) -> te.Tensor:
        *own, thresholds, direction = tensors
        codes = threshold(convolve(planes, *own, layer), thresholds, direction, 3)
        return codes if layer.writes_bytes else pack(codes, layer.out_bits)

    return compute, [*constants, layer.thresholds, layer.direction]


def _with_float_steps(convolve: Callable, constants: list[np.ndarray], layer: ConvLayer):
    def compute(planes: te.Tensor, *tensors: te.Tensor) -> te.Tensor:
        residual = tensors[0] if layer.has_residual else None
        tensors = tensors[layer.has_residual :]
        own, rest = tensors[: len(constants)], tensors[len(constants) :]
        return float_steps(convolve(planes, *own, layer), layer.steps, rest, residual)

    return compute, [*constants, *(value for step in layer.steps for value in step.constants)]
