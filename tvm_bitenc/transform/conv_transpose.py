r"""Transposed convolutions as ordinary ones of stride 1, woven together (sub-pixel convolution).

Along one axis, output o of stride s, dilation d and padding p sums the taps t of the kernel for
which :math:`i = (o + p - d t) / s` is an input position. All outputs o = s q + r of one *phase* r
take the same taps: those where s divides r + p - d t. So a phase is a convolution of stride 1 whose
kernel has these taps only, last one first, and all phases are interleaved. No zeros are inserted,
so it makes no difference whether the encoding has a code for 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from tvm import relax

from ..layer import height_width
from ..op.interleave import interleave
from .rewrite import Graph


@dataclass(frozen=True)
class Phase:
    """One axis of a convolution of stride 1.

    Parameters
    ----------
    taps : slice
        Of the kernel in reversed order.
    dilation : int
    before, after : int
        Padding; negative where the input is cut off.
    """

    taps: slice
    dilation: int
    before: int
    after: int


def phases(
    size: int, out_size: int, kernel: int, stride: int, padding: int, dilation: int
) -> list[Phase | None]:
    """Convolutions of one axis that give ``ceil(out_size / stride)`` outputs each.

    None stands for a phase without any taps on the input, whose outputs are 0.
    """
    outputs = -(-out_size // stride)
    found: list[Phase | None] = []
    for phase in range(stride):
        taps = [t for t in range(kernel) if (dilation * t - phase - padding) % stride == 0]
        if not taps:
            found.append(None)
            continue
        last, step = taps[-1], stride // math.gcd(stride, dilation)
        apart = dilation // math.gcd(stride, dilation)
        before = (dilation * last - phase - padding) // stride
        after = outputs - 1 - before + (len(taps) - 1) * apart - (size - 1)
        if min(before, after) <= -size:  # No window reaches the input.
            found.append(None)
            continue
        found.append(Phase(slice(kernel - 1 - last, None, step), apart, before, after))
    return found


def conv2d_of_transposed(call: relax.Call, graph: Graph) -> relax.Expr:
    """Rewrite a `relax.nn.conv2d_transpose` of NCHW and IOHW."""
    image, attrs = call.args[0], call.attrs
    out_size, strides = height_width(list(call.ty.shape)[2:]), height_width(attrs.strides)
    kernel = _reversed_oihw(call, graph)
    rows, columns = (
        phases(
            int(image.ty.shape[2 + axis]),
            out_size[axis],
            int(kernel.ty.shape[2 + axis]),
            strides[axis],
            int(attrs.padding[axis]),
            int(attrs.dilation[axis]),
        )
        for axis in (0, 1)
    )
    shape = [call.ty.shape[0], call.ty.shape[1], *(-(-n // s) for n, s in zip(out_size, strides))]
    parts = [
        graph.emit(_phase(image, kernel, row, column, int(attrs.groups), shape, graph))
        for row in rows
        for column in columns
    ]
    if len(parts) == 1:
        return parts[0]
    return interleave(parts, strides, out_size)


def _reversed_oihw(call: relax.Call, graph: Graph) -> relax.Expr:
    """Weight (I, O / groups, H, W) as (O, I / groups, H, W), rows and columns back to front."""
    weight, groups = call.args[1], int(call.attrs.groups)
    in_channels, per_group, *size = (int(extent) for extent in weight.ty.shape)
    for axis in (2, 3):
        weight = graph.emit(relax.op.flip(weight, axis))
    if groups > 1:
        grouped = (groups, in_channels // groups, per_group, *size)
        weight = graph.emit(relax.op.reshape(weight, grouped))
        weight = graph.emit(relax.op.permute_dims(weight, (0, 2, 1, 3, 4)))
        shape = (groups * per_group, in_channels // groups, *size)
        return graph.emit(relax.op.reshape(weight, shape))
    return graph.emit(relax.op.permute_dims(weight, (1, 0, 2, 3)))


def _phase(
    image: relax.Expr,
    kernel: relax.Expr,
    row: Phase | None,
    column: Phase | None,
    groups: int,
    shape: list,
    graph: Graph,
) -> relax.Expr:
    if row is None or column is None:
        return relax.op.full(shape, relax.const(np.float32(0)), "float32")
    taps = _sliced(kernel, {2: row.taps, 3: column.taps}, graph)
    inside = {
        axis: slice(max(-phase.before, 0), min(phase.after, 0) or None)
        for axis, phase in ((2, row), (3, column))
    }
    return relax.op.nn.conv2d(
        _sliced(image, inside, graph),
        taps,
        padding=[max(n, 0) for n in (row.before, column.before, row.after, column.after)],
        dilation=[row.dilation, column.dilation],
        groups=groups,
    )


def _sliced(tensor: relax.Expr, ranges: dict[int, slice], graph: Graph) -> relax.Expr:
    sizes = {axis: int(tensor.ty.shape[axis]) for axis in ranges}
    bounds = {axis: wanted.indices(sizes[axis]) for axis, wanted in ranges.items()}
    if all(bounds[axis] == (0, sizes[axis], 1) for axis in ranges):
        return tensor
    begins, ends, steps = zip(*bounds.values())
    return graph.emit(
        relax.op.strided_slice(tensor, list(bounds), begins, ends, steps, assume_inbound=False)
    )
