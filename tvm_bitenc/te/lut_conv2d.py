"""Branch-sum convolution by table look-up: the plain definition, for any CPU."""

from __future__ import annotations

import numpy as np
from tvm import te, tirx

from ..encoding import planes as planes_of
from ..layer import ConvLayer
from .conv2d import accumulator_of, chosen, pad_planes, regroup
from .pack import unpack

GROUP = 4  # Channels to a table.


def lut_weights(layer: ConvLayer) -> np.ndarray:
    """4-bit patterns of the weight planes, one to a byte.

    Returns
    -------
    ndarray of uint8, shape (weight_bits, kernel_h, kernel_w, groups of four, out_channels)
    """
    bits, per_group = layer.weight_bits, layer.weight_codes.shape[1]
    bit = (planes_of(layer.weight_codes, bits) > 0).astype(np.uint8)  # m, o, c, i, j
    bit = np.pad(bit, [(0, 0), (0, 0), (0, -per_group % GROUP), (0, 0), (0, 0)])
    bit = bit.reshape(*bit.shape[:2], -1, GROUP, *bit.shape[3:])
    pattern = np.tensordot(bit, 1 << np.arange(GROUP), axes=(3, 0)).astype(np.uint8)
    return np.ascontiguousarray(pattern.transpose(0, 3, 4, 2, 1))


def lut_conv2d(
    planes: te.Tensor,
    weight: te.Tensor,
    border: te.Tensor,
    row_class: te.Tensor,
    column_class: te.Tensor,
    weight_offset: te.Tensor,
    layer: ConvLayer,
) -> te.Tensor:
    """Accumulators from packed planes, by tables of how four activations differ from patterns.

    Parameters and result are those of `conv2d.xnor_conv2d`, the weight as `lut_weights` has it.
    """
    geometry = layer.geometry
    weight_bits, kernel_h, kernel_w, tables, out_channels = (int(n) for n in weight.shape)
    (stride_h, stride_w), (dilation_h, dilation_w) = geometry.strides, geometry.dilation
    per_group, out_per_group = layer.weight_codes.shape[1], out_channels // geometry.groups
    padded = pad_planes(planes, geometry)
    codes = unpack(padded, layer.input_shape[3])
    batch, height, width, _ = codes.shape

    rows, row_of_plane = geometry.table_rows

    def entry(
        n: tirx.Var,
        y: tirx.Var,
        x: tirx.Var,
        g: tirx.Var,
        row: tirx.Var,
        t: tirx.Var,
        pattern: tirx.Var,
    ) -> tirx.Expr:
        total = tirx.const(0, "int32")
        for c in range(GROUP):
            channel = t * GROUP + c
            inside = channel < per_group
            index = tirx.if_then_else(inside, g * per_group + channel, 0)
            code = tirx.if_then_else(inside, tirx.Cast("int32", codes[n, y, x, index]), 0)
            for k, column in enumerate(zip(*rows)):
                kappa = chosen(row, column)
                total = total + kappa * (((code >> k) ^ (pattern >> c)) & 1)
        return total

    shape = (batch, height, width, geometry.groups, len(rows), tables, 1 << GROUP)
    table = te.compute(shape, entry, name="tables")
    m, i, j, t = (
        te.reduce_axis((0, size), name)
        for size, name in ((weight_bits, "m"), (kernel_h, "i"), (kernel_w, "j"), (tables, "t"))
    )

    def looked_up(n: tirx.Var, y: tirx.Var, x: tirx.Var, o: tirx.Var) -> tirx.Expr:
        row, column = y * stride_h + i * dilation_h, x * stride_w + j * dilation_w
        number, factor = (chosen(m, numbers) for numbers in zip(*row_of_plane))
        found = table[n, row, column, o // out_per_group, number, t, weight[m, i, j, t, o]]
        return te.sum(tirx.Cast("uint32", found * factor), axis=[m, i, j, t])

    differing = te.compute((batch, *layer.output_size, out_channels), looked_up, name="differing")
    return accumulator_of(
        lambda n, y, x, o: differing[n, y, x, o] * tirx.const(2, "uint32"),
        regroup(padded, layer),
        (border, row_class, column_class, weight_offset),
        layer,
    )
