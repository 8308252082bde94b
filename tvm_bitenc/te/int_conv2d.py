"""Convolution by plain integer products: for layers where branches outnumber the bits' worth."""

from __future__ import annotations

import numpy as np
from tvm import te, tirx

from ..branches import plane_integers
from ..layer import ConvLayer
from .pack import unpack


def int_weights(layer: ConvLayer) -> np.ndarray:
    """Weight integers v + o: int16, shape (kernel_h, kernel_w, in_channels / groups, out_channels).

    The widest are those of 8 bits, -510 to 510. With a branch matrix every activation plane is a
    channel, and a last one of each is what weights add by themselves; int32 then.
    """
    if layer.geometry.is_product:
        return np.ascontiguousarray(layer.weight_integers.transpose(2, 3, 1, 0).astype(np.int16))
    integers = plane_integers(layer.weight_codes, layer.weight_offset, layer.geometry)
    integers = integers.transpose(3, 4, 2, 0, 1)  # i, j, channel, plane, o
    return np.ascontiguousarray(integers.reshape(*integers.shape[:2], -1, integers.shape[-1]))


def int_conv2d(planes: te.Tensor, weight: te.Tensor, layer: ConvLayer) -> te.Tensor:
    """Accumulators from packed planes by integer multiply-accumulate; padding is a plain 0.

    Parameters
    ----------
    planes : te.Tensor of uint64, shape (batch, height, width, act_bits, groups * words)
    weight : te.Tensor of int16 or int32, as `int_weights` lays it out
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
    """v + o of every activation, or its planes and 1, int32 NHWC, surrounded by 0."""
    geometry, (_, height, width, channels) = layer.geometry, layer.input_shape
    top, left, bottom, right = geometry.padding
    codes = unpack(planes, channels)
    parts = 1 if geometry.is_product else layer.act_bits + 1

    def integer(n: tirx.Var, y: tirx.Var, x: tirx.Var, c: tirx.Var) -> tirx.Expr:
        inside = tirx.all(y >= top, y < top + height, x >= left, x < left + width)
        code = tirx.Cast("int32", codes[n, y - top, x - left, c // parts])
        value = _integer(code, layer) if geometry.is_product else _sign(code, c % parts, parts)
        return tirx.if_then_else(inside, value, 0)

    shape = (planes.shape[0], height + top + bottom, width + left + right, channels * parts)
    return te.compute(shape, integer, name="integers")


def _integer(code: tirx.Expr, layer: ConvLayer) -> tirx.Expr:
    """v + o of a code."""
    coefficients = layer.geometry.act_coefficients
    value = sum(2 * kappa * ((code >> k) & 1) for k, kappa in enumerate(coefficients))
    return value + (layer.geometry.act_offset - sum(coefficients))


def _sign(code: tirx.Expr, part: tirx.Expr, parts: int) -> tirx.Expr:
    """Plane of a code, -1 or +1; the last part is 1."""
    return tirx.if_then_else(part == parts - 1, 1, 2 * ((code >> part) & 1) - 1)
