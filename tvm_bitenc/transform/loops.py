"""Loops over elements, as passes on TIR see them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeAlias

import tvm
import tvm_ffi
from tvm import s_tir, tirx

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


def _has_loops(function: tvm.ir.BaseFunc) -> bool:
    """Whether a function is loops over blocks; TVM's sort, say, is one call of its runtime."""
    if not isinstance(function, tirx.PrimFunc):
        return False
    realize = function.body
    return hasattr(realize, "block") and realize.block.name_hint == "root"


def is_map(block: tirx.SBlock) -> bool:
    """Whether a block computes each element of its output by one expression, in its own order.

    One without elements isn't a map.
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
    )


def is_constant(value: tirx.Expr, number: int) -> bool:
    """Whether an index or a size is a certain number."""
    return isinstance(value, tirx.IntImm) and int(value) == number


def loads_of(block: tirx.SBlock) -> list[tvm.ir.TensorLoad]:
    """Return what a block reads, one entry for each place in its expression."""
    found: list[tvm.ir.TensorLoad] = []
    tvm_ffi.structural_walk(block.body, (tvm.ir.TensorLoad, found.append))
    return found


def buffer_of(access: Access) -> tirx.Buffer:
    """Return what an access reads or writes."""
    return access.buffer if isinstance(access, tirx.BufferStore) else access.source


def size_of(block: tirx.SBlock) -> int:
    """Count the nodes of a block's expression."""
    count = 0

    def visit(_: tirx.Expr) -> None:
        nonlocal count
        count += 1

    tvm_ffi.structural_walk(block.body.value, (tvm.ir.Expr, visit))
    return count


def runs_along_memory(block: tirx.SBlock, first: int) -> bool:
    """Whether each access of a map runs along memory, or stands still, in the axes from `first` on.

    Then these axes are as good as one.
    """
    return all(_runs_along(access, block, first) for access in (block.body, *loads_of(block)))


def _runs_along(access: Access, block: tirx.SBlock, first: int) -> bool:
    axes = block.iter_vars[first:]
    split = len(access.indices) - len(axes)
    outer, inner = access.indices[: max(split, 0)], access.indices[max(split, 0) :]
    variables = [axis.var for axis in axes]
    if not any(_uses(index, variables) for index in access.indices):
        return True
    if split < 0 or any(_uses(index, variables) for index in outer):
        return False
    shape = buffer_of(access).shape[split:]
    is_whole = [_equal(size, axis.dom.extent) for size, axis in zip(shape, axes)]
    return all(i.same_as(v) for i, v in zip(inner, variables)) and all(is_whole[1:])


def _uses(index: tirx.Expr, variables: list[tirx.Var]) -> bool:
    used = tirx.analysis.undefined_vars(index)
    return any(u.same_as(v) for u in used for v in variables)


def _equal(a: tirx.Expr, b: tirx.Expr) -> bool:
    return bool(tvm_ffi.structural_equal(a, b))
