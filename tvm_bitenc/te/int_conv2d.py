"""Convolution by plain integer products: for layers where branches outnumber the bits' worth."""

from __future__ import annotations

import numpy as np
from tvm import te, tirx

from ..layer import ConvLayer
from .pack import unpack


def int_weights(layer: ConvLayer) -> np.ndarray:
    """Weight integers v + o: int16, shape (kernel_h, kernel_w, in_channels / groups, out_channels).

    The widest are those of 8 bits, -510 to 510.
    """
    return np.ascontiguousarray(layer.weight_integers.transpose(2, 3, 1, 0).astype(np.int16))


def int_conv2d(planes: te.Tensor, weight: te.Tensor, layer: ConvLayer) -> te.Tensor:
    """Accumulators from packed planes by integer multiply-accumulate; padding is a plain 0.

    Parameters
    ----------
    planes : te.Tensor of uint64, shape (batch, height, width, act_bits, groups * words)
    weight : te.Tensor of int16, as `int_weights` lays it out
    layer : ConvLayer

    Returns
    -------
    te.Tensor of int32, shape (batch, out_height, out_width, out_channels)
    """
    geometry = layer.geometry
    kernel_h, kernel_w, per_group, out_channels = (int(size) for size in weight.shape)
    (stride_h, stride_w), (dilation_h, dilation_w) = geometry.strides, geometry.dilation
    integers = _padded_integers(planes, layer)
    i, j, c = (
        te.reduce_axis((0, size), name)
        for size, name in ((kernel_h, "i"), (kernel_w, "j"), (per_group, "c"))
    )
    out_per_group = out_channels // geometry.groups

    def accumulate(n: tirx.Var, y: tirx.Var, x: tirx.Var, o: tirx.Var) -> tirx.Expr:
        row, column = y * stride_h + i * dilation_h, x * stride_w + j * dilation_w
        channel = o // out_per_group * per_group + c
        product = integers[n, row, column, channel] * tirx.Cast("int32", weight[i, j, c, o])
        return te.sum(product, axis=[i, j, c])

    return te.compute(
        (planes.shape[0], *layer.output_size, out_channels), accumulate, name="accumulator"
    )


def _padded_integers(planes: te.Tensor, layer: ConvLayer) -> te.Tensor:
    """v + o of every activation, int32 NHWC, surrounded by 0."""
    geometry, (_, height, width, channels) = layer.geometry, layer.input_shape
    top, left, bottom, right = geometry.padding
    codes = unpack(planes, channels)
    kappa = sum(geometry.act_coefficients)

    def integer(n: tirx.Var, y: tirx.Var, x: tirx.Var, c: tirx.Var) -> tirx.Expr:
        inside = tirx.all(y >= top, y < top + height, x >= left, x < left + width)
        code = tirx.Cast("int32", codes[n, y - top, x - left, c])
        value = sum(
            2 * coefficient * ((code >> k) & 1)
            for k, coefficient in enumerate(geometry.act_coefficients)
        )
        return tirx.if_then_else(inside, value + (geometry.act_offset - kappa), 0)

    shape = (planes.shape[0], height + top + bottom, width + left + right, channels)
    return te.compute(shape, integer, name="integers")
