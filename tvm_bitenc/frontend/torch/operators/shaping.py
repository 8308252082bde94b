"""Shapes changed, tensors joined and cut: moves of numbers that change none.

Where torch says which shape a result has, its shape is taken, not computed again.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from tvm import relax
from tvm.sym import Analyzer

from ..node_call import NodeCall, constant

_op = relax.op


def reshape(call: NodeCall) -> relax.Expr:
    """Any operator that changes nothing but the shape."""
    call.read()
    x, shape = call["self"], call.shape
    if any(isinstance(size, int) and size == 0 for size in shape):
        return call.importer._emit_torch_reshape(x, shape)  # Relax reads 0 as "as before".
    if list(x.ty.shape) == shape:
        return x
    return call.emit(_op.reshape(x, relax.ShapeExpr(shape)))


def expand(call: NodeCall) -> relax.Expr:
    """Repeat along axes of size 1, or new ones."""
    call.read()
    return call.emit(_op.broadcast_to(call["self"], relax.ShapeExpr(call.shape)))


def repeat(call: NodeCall) -> relax.Expr:
    """Repeat along all axes."""
    return call.emit(_op.tile(call["self"], call.ints("repeats")))


def permute(call: NodeCall) -> relax.Expr:
    """Axes in another order."""
    axes = call.axes("dims", call.fake("self").ndim)
    return call.emit(_op.permute_dims(call["self"], axes)) if axes else call["self"]


def flip(call: NodeCall) -> relax.Expr:
    """Axes backwards."""
    x, rank = call["self"], call.fake("self").ndim
    for axis in [axis % max(rank, 1) for axis in call.ints("dims")] if rank else []:
        x = call.emit(_op.flip(x, axis))
    call.read("dims")
    return x


def cat(call: NodeCall) -> relax.Expr:
    """Join tensors; empty ones add nothing."""
    fakes = [node.meta["val"] for node in call.graph_value("tensors")]
    (axis,) = call.axes("dim", len(call.shape))
    skipped = [fake.ndim <= axis or fake.shape[axis] == 0 for fake in fakes]
    if all(skipped):
        skipped[-1] = False
    parts = [
        call.as_tensor(part, call.dtype) for part, skip in zip(call["tensors"], skipped) if not skip
    ]
    return call.emit(_op.concat(parts, axis)) if len(parts) > 1 else parts[0]


def split_with_sizes(call: NodeCall) -> tuple[relax.Expr, ...]:
    """Cut into pieces of given sizes."""
    (axis,) = call.axes("dim", call.fake("self").ndim)
    edges = np.cumsum([0, *call.ints("split_sizes")])
    x = call["self"]
    return tuple(
        call.emit(_op.strided_slice(x, [axis], [int(start)], [int(end)]))
        if call.is_used(i)
        else None
        for i, (start, end) in enumerate(pairwise(edges))
    )


def slice_(call: NodeCall) -> relax.Expr:
    """Every so-many-th element between two positions, which may count from the end."""
    (axis,) = call.axes("dim", call.fake("self").ndim)
    size = call.fake("self").shape[axis]
    x, start, end, (step,) = call["self"], call["start"], call["end"], call.ints("step")
    if isinstance(size, int) and all(isinstance(v, (int, type(None))) for v in (start, end)):
        start, end, _ = slice(start, end, step).indices(size)
        if (start, step) == (0, 1) and end >= size:
            return x
        return call.emit(_op.strided_slice(x, [axis], [start], [max(start, end)], [step]))
    return _symbolic_slice(call, axis, start, step)


def _symbolic_slice(call: NodeCall, axis: int, start: Any, step: int) -> relax.Expr:
    """A slice whose size is known to torch alone: from a fixed position on, or all."""
    x, length = call["self"], call.shape[axis]
    if start is None:
        start = 0
    if isinstance(start, int) and start < 0:
        start = x.ty.shape[axis] + start
    call.read("end")
    if step == 1 and Analyzer().can_prove_equal(x.ty.shape[axis], length):
        return x
    end = start + (length - 1) * step + 1
    return call.emit(_op.strided_slice(x, [axis], [start], [end], [step]))


def slice_scatter(call: NodeCall) -> relax.Expr:
    """The tensor with a slice replaced: both joined, and the right ones taken."""
    (axis,) = call.axes("dim", call.fake("self").ndim)
    size, start, end, (step,) = (
        call.fake("self").shape[axis],
        call["start"],
        call["end"],
        call.ints("step"),
    )
    if not all(isinstance(v, (int, type(None))) for v in (size, start, end)):
        call.refuse("replaces a slice of unknown size", "Export it with fixed sizes")
    replaced = np.arange(size)[start:end:step]
    order = np.arange(size)
    order[replaced] = size + np.arange(len(replaced))
    joined = call.emit(_op.concat([call["self"], call.tensor("src", call.dtype)], axis))
    return call.emit(_op.take(joined, constant(order), axis, mode="clip"))


def constant_pad(call: NodeCall) -> relax.Expr:
    """Pad with a number; negative widths cut."""
    x, rank = call["self"], call.fake("self").ndim
    widths = call.ints("pad")
    pairs = [(widths[i], widths[i + 1]) for i in range(0, len(widths), 2)][::-1]
    pairs = [(0, 0)] * (rank - len(pairs)) + pairs
    for axis, (before, after) in enumerate(pairs):
        if before < 0 or after < 0:
            end = x.ty.shape[axis] + min(after, 0)
            x = call.emit(_op.strided_slice(x, [axis], [max(-before, 0)], [end]))
    padding = [max(width, 0) for pair in pairs for width in pair]
    value = call["value"]
    if not any(padding):
        return x
    if call.dtype == "bool":
        padded = _op.nn.pad(call.cast(x, "int8"), padding, "constant", int(bool(value)))
        return call.cast(call.emit(padded), "bool")
    return call.emit(_op.nn.pad(x, padding, "constant", value))


def diagonal(call: NodeCall) -> relax.Expr:
    """Elements on a diagonal of two axes, as the last axis."""
    rank = call.fake("self").ndim
    first, second = (call.ints(name)[0] % rank for name in ("dim1", "dim2"))
    (offset,) = call.ints("offset")
    (length,) = call.shape[-1:]
    if not isinstance(length, int):
        call.refuse("takes a diagonal of unknown length", "Export it with fixed sizes")
    others = [axis for axis in range(rank) if axis not in (first, second)]
    x = call.emit(_op.permute_dims(call["self"], [first, second, *others]))
    width = call.fake("self").shape[second]
    rows, columns = max(-offset, 0), max(offset, 0)
    indices = (rows + np.arange(length)) * width + columns + np.arange(length)
    flat = call.emit(_op.reshape(x, (-1, *list(x.ty.shape)[2:])))
    taken = call.emit(_op.take(flat, constant(indices.astype(np.int64)), 0, mode="clip"))
    return call.emit(_op.permute_dims(taken, [*range(1, len(others) + 1), 0]))


def unfold(call: NodeCall) -> relax.Expr:
    """Windows of an axis, as a new last axis."""
    rank = call.fake("self").ndim
    (axis,), (size,), (step,) = call.axes("dimension", rank), call.ints("size"), call.ints("step")
    if not rank:
        return call.emit(_op.reshape(call["self"], call.shape))
    count = call.shape[axis]
    if not isinstance(count, int):
        call.refuse("cuts an axis of unknown size", "Export it with fixed sizes")
    indices = np.arange(count)[:, None] * step + np.arange(size)
    taken = call.emit(_op.take(call["self"], constant(indices.astype(np.int64)), axis, mode="clip"))
    axes = [a for a in range(rank + 1) if a != axis + 1]
    return call.emit(_op.permute_dims(taken, [*axes, axis + 1]))


def as_strided(call: NodeCall) -> relax.Expr:
    """A view by strides: the elements are taken by their places in memory."""
    fake = call.fake("self")
    if not all(isinstance(v, int) for v in (*fake.shape, *fake.stride())):
        call.refuse("views memory of unknown size", "Export it with fixed sizes")
    places = torch.arange(_extent(fake)).as_strided(fake.shape, fake.stride())
    wanted = torch.arange(_extent(fake)).as_strided(
        call.ints("size"), call.ints("stride"), call["storage_offset"] or 0
    )
    where = {int(place): i for i, place in enumerate(places.reshape(-1))}
    if not set(wanted.reshape(-1).tolist()) <= set(where):
        call.refuse("reads memory outside of its tensor", "Use slices")
    indices = [where[int(place)] for place in wanted.reshape(-1)]
    flat = call.emit(_op.reshape(call["self"], (-1,)))
    taken = call.emit(_op.take(flat, constant(np.asarray(indices, np.int64)), 0, mode="clip"))
    return call.emit(_op.reshape(taken, call.shape))


def _extent(fake: torch.Tensor) -> int:
    return 1 + sum((size - 1) * stride for size, stride in zip(fake.shape, fake.stride()))


OPERATORS: dict[str, Callable] = {
    "_unsafe_view.default": reshape,
    "as_strided.default": as_strided,
    "cat.default": cat,
    "constant_pad_nd.default": constant_pad,
    "diagonal.default": diagonal,
    "expand.default": expand,
    "flip.default": flip,
    "permute.default": permute,
    "repeat.default": repeat,
    "reshape.default": reshape,
    "slice.Tensor": slice_,
    "slice_scatter.default": slice_scatter,
    "split_with_sizes.default": split_with_sizes,
    "squeeze.default": reshape,
    "squeeze.dim": reshape,
    "squeeze.dims": reshape,
    "unfold.default": unfold,
    "unsqueeze.default": reshape,
    "view.default": reshape,
}
