"""Loops over elements, as passes on TIR see them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

import tvm
import tvm_ffi
from tvm import s_tir, tirx

# What a vector computes as a scalar does, on every CPU. Hyperbolic sines have no vectors at all; of
# exponentials and their like each CPU's would have to be compared.
_SAME_IN_VECTORS = {"prim.ceil"} | {
    f"tirx.{name}"
    for name in (
        *("call_llvm_pure_intrin", "fabs", "floor", "nearbyint", "reinterpret"),
        *("round", "rsqrt", "sqrt", "trunc"),
    )
}
TILE = 16  # Of a transpose, at most, in either direction.
MIN_LANES = 4
Access: TypeAlias = "tvm.ir.TensorLoad | tirx.BufferStore"


def map_functions(
    mod: tvm.IRModule,
    change: Callable[[s_tir.Schedule], None],
    unless: Callable[[tvm.ir.BaseFunc], bool],
) -> tvm.IRModule:
    """Return a module whose functions of loops are changed, unless they are excepted.

    Functions of others may be more than a chain of loops: those stay as they are.
    """
    mod = mod.clone()
    for global_var, function in list(mod.functions_items()):
        if _has_loops(function) and not unless(function):
            schedule = s_tir.Schedule(tvm.IRModule({"main": function}))
            with contextlib.suppress(s_tir.ScheduleError):
                change(schedule)
                mod[global_var] = schedule.mod["main"]
    return mod


def map_bodies(
    mod: tvm.IRModule,
    *rewrites: tuple[type, Callable[..., object]],
    unless: Callable[[tvm.ir.BaseFunc], bool] = lambda _: False,
) -> tvm.IRModule:
    """Return a module whose functions of TIR are rewritten node by node, unless they are excepted.

    Parameters
    ----------
    mod : tvm.IRModule
    *rewrites : (type, callable)
        What becomes of each node of a type.
    unless : callable
    """
    mod = mod.clone()
    for global_var, function in list(mod.functions_items()):
        if isinstance(function, tirx.PrimFunc) and not unless(function):
            mod[global_var] = function.with_body(
                tvm_ffi.structural_map(function.body, list(rewrites))
            )
    return mod


def _has_loops(function: tvm.ir.BaseFunc) -> bool:
    """Whether a function is loops over blocks; TVM's sort, say, is one call of its runtime."""
    if not isinstance(function, tirx.PrimFunc):
        return False
    realize = function.body
    return hasattr(realize, "block") and realize.block.name_hint == "root"


def is_map(block: s_tir.SBlock) -> bool:
    """Whether a block computes each element of its output by one expression, in its own order.

    One without elements isn't a map, nor one whose numbers would be others in vectors.
    """
    if block.init is not None or not isinstance(block.body, tirx.BufferStore):
        return False
    axes = block.iter_vars
    indices = block.body.indices
    return (
        bool(axes)
        and all(axis.iter_type == tirx.IterVar.DataPar for axis in axes)
        and not any(is_constant(axis.dom.extent, 0) for axis in axes)
        and len(indices) == len(axes)
        and all(index.same_as(axis.var) for index, axis in zip(indices, axes))
        and all(call in _SAME_IN_VECTORS for call in _calls_of(block))
    )


def _calls_of(block: s_tir.SBlock) -> set[str]:
    found: set[str] = set()
    tvm_ffi.structural_walk(
        block.body, (tvm.ir.Call, lambda call: found.add(getattr(call.op, "name", "")))
    )
    return found


def is_constant(value: tirx.Expr, number: int) -> bool:
    """Whether an index or a size is a certain number."""
    return isinstance(value, tirx.IntImm) and int(value) == number


def loads_of(block: s_tir.SBlock) -> list[tvm.ir.TensorLoad]:
    """Return what a block reads, one entry for each place in its expression."""
    found: list[tvm.ir.TensorLoad] = []
    tvm_ffi.structural_walk(block.body, (tvm.ir.TensorLoad, found.append))
    return found


def buffer_of(access: Access) -> tirx.Buffer:
    """Return what an access reads or writes."""
    return access.buffer if isinstance(access, tirx.BufferStore) else access.source


def size_of(block: s_tir.SBlock) -> int:
    """Count the nodes of a block's expression."""
    count = 0

    def visit(_: tirx.Expr) -> None:
        nonlocal count
        count += 1

    tvm_ffi.structural_walk(block.body.value, (tvm.ir.Expr, visit))
    return count


def runs_along_memory(block: s_tir.SBlock, first: int) -> bool:
    """Whether each access of a map runs along memory, or stands still, in the axes from `first` on.

    Then these axes are as good as one.
    """
    axes = block.iter_vars
    return all(
        _runs_along(list(access.indices), list(buffer_of(access).shape), axes, first)
        for access in (block.body, *loads_of(block))
    )


def turned_axes(block: s_tir.SBlock) -> tuple[int, int] | None:
    """Return the axes along which a transpose writes and reads.

    Returns
    -------
    (first, axis) or None
        The block writes along the axes from `first` on, which are as good as one; some of its loads
        run along `axis` instead, and all others as the block writes. None for what isn't so.
    """
    axes = block.iter_vars
    for first in range(1, len(axes)):
        read = {_axis_read_along(load, axes, first) for load in loads_of(block)} - {first}
        if len(read) == 1 and None not in read:
            return first, cast("int", read.pop())
    return None


def transpose_tile(block: s_tir.SBlock) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return `turned_axes` of a transpose, and how long its tiles are along `axis` and `first`."""
    turned = turned_axes(block) if is_map(block) else None
    if turned is None:
        return None
    written, read = static_count(block, turned[0]), block.iter_vars[turned[1]].dom.extent
    if written is None or not isinstance(read, tirx.IntImm):
        return None
    rows, lanes = divisor(int(read), TILE), divisor(written, TILE)
    return (turned, (rows, lanes)) if lanes >= MIN_LANES else None


def static_count(block: s_tir.SBlock, first: int) -> int | None:
    """Number of elements in the axes from `first` on; None where one is dynamic."""
    extents = [axis.dom.extent for axis in block.iter_vars[first:]]
    if not all(isinstance(extent, tirx.IntImm) for extent in extents):
        return None
    return math.prod(int(extent) for extent in extents)


def _axis_read_along(load: Access, axes: Sequence[tirx.IterVar], first: int) -> int | None:
    """`first` for a load that runs along memory, the axis of one that is turned, else None."""
    indices, shape = list(load.indices), list(buffer_of(load).shape)
    if _runs_along(indices, shape, axes, first):
        return first
    turned = [i for i, axis in enumerate(axes[:first]) if indices[-1].same_as(axis.var)]
    plain = (tirx.Var, tirx.IntImm)
    is_one = first == len(axes) - 1 and all(isinstance(index, plain) for index in indices)
    if turned and (is_one or _runs_along(indices[:-1], shape[:-1], axes, first)):
        return turned[0]
    return None


def _runs_along(
    indices: list[tirx.Expr], shape: list[tirx.Expr], axes: Sequence[tirx.IterVar], first: int
) -> bool:
    variables = [axis.var for axis in axes[first:]]
    if not any(uses(index, variables) for index in indices):
        return True
    split = len(indices) - len(variables)
    if split < 0 or any(uses(index, variables) for index in indices[:split]):
        return False
    extents = [axis.dom.extent for axis in axes[first:]]
    is_whole = [tvm_ffi.structural_equal(n, extent) for n, extent in zip(shape[split:], extents)]
    is_in_order = all(i.same_as(v) for i, v in zip(indices[split:], variables))
    return is_in_order and all(is_whole[1:])


def divisor(count: int, most: int) -> int:
    """Largest divisor of a count up to `most`, without listing those of a count of millions."""
    return next((n for n in range(most, 0, -1) if count % n == 0), 1)


def uses(index: tirx.Expr, variables: list[tirx.Var]) -> bool:
    """Whether an index has any of the variables in it."""
    used = tirx.analysis.undefined_vars(index)
    return any(u.same_as(v) for u in used for v in variables)
