"""Shaping ops on planes instead of codes.

What moves single channels stays an op on codes, between an `unpack` and a `pack`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, topi

from ...encoding import WORD_BITS
from ...layer import height_width
from ...op.interleave import interleave, interleave_op
from ...op.packed_channels import packed_concat, packed_slice
from ...op.registration import constant_value
from ...te.function import prim_func
from ..analysis.constant_shaping import slices
from ..analysis.float32 import op_name
from ..analysis.shaping import PAD, RESHAPING, constant_pad, is_nearest, pad_widths, sources
from ..rewrite import Graph
from .planes import PLANE_AXES, bits_of_packable, packed_source, planes_of, unpacked

CHANNELS = 1
MAX_RESHAPINGS = 16  # One after another, that are looked through.


def shape_planes(call: relax.Call, graph: Graph) -> relax.Expr | None:
    """Rewrite a shaping op on codes, if it can act on their planes."""
    if op_name(call) in (*RESHAPING, "relax.broadcast_to"):
        return _without_round_trip(call, graph)
    if str(getattr(call.ty, "dtype", "")) != "uint8" or len(call.ty.shape) != 4:
        return None
    parts = sources(call, graph)
    on_planes = _RULES.get("nearest" if is_nearest(call) else op_name(call))
    if parts is None or on_planes is None or all(packed_source(p, graph) is None for p in parts):
        return None
    bits = [bits_of_packable(part, graph) for part in parts]
    if bits[0] is None or len(set(bits)) > 1:
        return None
    result = on_planes(call, [planes_of(part, bits[0], graph) for part in parts], graph)
    return None if result is None else unpacked(graph.emit(result), call.ty.shape[1], graph)


def _without_round_trip(call: relax.Call, graph: Graph) -> relax.Expr | None:
    """Return the tensor that reshapings, one after another, end up in the shape of."""
    expr: relax.Expr = call
    for _ in range(MAX_RESHAPINGS):
        if op_name(expr) not in RESHAPING and not expr.same_as(call):
            break
        if tvm_ffi.structural_equal(expr.args[0].ty, call.ty):
            return expr.args[0]
        expr = graph.definition(expr.args[0])
    return None


def _concat(call: relax.Call, parts: Sequence[relax.Expr], graph: Graph) -> relax.Expr | None:
    axis = int(call.attrs.axis) % 4
    channels = [int(field.shape[CHANNELS]) for field in call.args[0].ty.fields]
    if axis == CHANNELS and any(count % WORD_BITS for count in channels[:-1]):
        return packed_concat(parts, channels)
    return relax.op.concat(parts, PLANE_AXES[axis])


def _interleave(call: relax.Call, parts: Sequence[relax.Expr], graph: Graph) -> relax.Expr | None:
    strides, size = (height_width(call.attrs[name]) for name in ("strides", "size"))
    return interleave(parts, strides, size, axis=PLANE_AXES[int(call.attrs["axis"])])


def _strided_slice(
    call: relax.Call, parts: Sequence[relax.Expr], graph: Graph
) -> relax.Expr | None:
    planes, sizes, ranges = parts[0], list(call.args[0].ty.shape), {}
    for axis, wanted in slices(call).items():
        if not isinstance(sizes[axis], tvm.tirx.IntImm):
            return None
        ranges[axis] = wanted.indices(int(sizes[axis]))
    begin, end, stride = ranges.pop(CHANNELS, (0, int(sizes[CHANNELS]), 1))
    if stride != 1 or any(step < 0 for *_, step in ranges.values()):
        return None
    if (begin, end) != (0, int(sizes[CHANNELS])):
        planes = packed_slice(planes, begin, end)
    if not ranges:
        return planes
    axes, bounds = [PLANE_AXES[axis] for axis in ranges], zip(*ranges.values())
    return relax.op.strided_slice(graph.emit(planes), axes, *bounds, assume_inbound=False)


def _take(call: relax.Call, parts: Sequence[relax.Expr], graph: Graph) -> relax.Expr | None:
    axis, indices = call.attrs.axis, constant_value(call.args[1])
    if axis is None or indices is None or indices.ndim != 1 or int(axis) % 4 == CHANNELS:
        return None
    return relax.op.take(parts[0], call.args[1], PLANE_AXES[int(axis) % 4], str(call.attrs.mode))


def _flip(call: relax.Call, parts: Sequence[relax.Expr], graph: Graph) -> relax.Expr | None:
    axis = int(call.attrs.axis) % 4
    return None if axis == CHANNELS else relax.op.flip(parts[0], PLANE_AXES[axis])


def _tile(call: relax.Call, parts: Sequence[relax.Expr], graph: Graph) -> relax.Expr | None:
    repeats = [int(count) for count in call.attrs.repeats]
    if len(repeats) != 4 or repeats[CHANNELS] != 1:
        return None
    return relax.op.tile(parts[0], [repeats[0], repeats[2], repeats[3], 1, 1])


def _pad(call: relax.Call, parts: Sequence[relax.Expr], graph: Graph) -> relax.Expr | None:
    batch, channels, rows, columns = pad_widths(call)
    if any(channels) or constant_pad(call):
        return None  # A code other than 0 isn't the same word in every plane.
    widths = [width for axis in (batch, rows, columns, (0, 0), (0, 0)) for width in axis]
    return relax.op.nn.pad(parts[0], widths, str(call.attrs.pad_mode), 0.0)


def _nearest(call: relax.Call, parts: Sequence[relax.Expr], graph: Graph) -> relax.Expr | None:
    if str(call.attrs.layout) != "NCHW":
        return None
    planes = parts[0]
    for axis, indices in zip((1, 2), nearest_indices(call)):
        planes = graph.emit(relax.op.take(planes, relax.const(indices, "int32"), axis))
    return planes


def nearest_indices(call: relax.Call) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns that a nearest `relax.image.resize2d` of NCHW copies.

    They are seen by resizing an image of its own row and column numbers with TVM's definition, so
    that coordinates are rounded just as in the op itself.
    """
    attrs = call.attrs
    height, width = (int(size) for size in list(call.args[0].ty.shape)[2:])
    numbers = np.mgrid[:height, :width].astype(np.float32)[None]
    size = tuple(int(extent) for extent in list(call.ty.shape)[2:])
    function = prim_func(
        lambda image: topi.image.resize2d(
            image,
            attrs.roi,
            list(size),
            "NCHW",
            attrs.method,
            attrs.coordinate_transformation_mode,
            attrs.rounding_method,
        ),
        [numbers],
    )
    resized = tvm.runtime.tensor(np.empty((1, 2, *size), np.float32))
    compiled = tvm.compile(tvm.IRModule({"main": function}), target="llvm")
    compiled["main"](tvm.runtime.tensor(numbers), resized)
    rows, columns = resized.numpy()[0].astype(np.int32)
    return rows[:, 0], columns[0]


_RULES: dict[str, Callable[[relax.Call, Sequence[relax.Expr], Graph], relax.Expr | None]] = {
    "relax.concat": _concat,
    interleave_op.name: _interleave,
    "relax.strided_slice": _strided_slice,
    "relax.take": _take,
    "relax.flip": _flip,
    "relax.tile": _tile,
    PAD: _pad,
    "nearest": _nearest,
}
