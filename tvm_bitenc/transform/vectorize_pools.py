"""Pools of floats, channels last: vectors of channels, and no padded copy of the input.

Before::

    for h, w, c in T.grid(114, 114, 64):
        pad[h, w, c] = T.if_then_else(1 <= h and h < 113 and ..., x[h - 1, w - 1, c], -3.4e38)
    for h, w, c, i, j in T.grid(56, 56, 64, 3, 3):
        y[h, w, c] = T.max(y[h, w, c], pad[h * 2 + i, w * 2 + j, c])

After::

    for h, w, o in T.grid(56, 56, 4):
        for v in T.vectorized(16): y[h, w, o * 16 + v] = -3.4e38
        for i, j in T.grid(3, 3):
            for v in T.vectorized(16):
                near = T.if_then_else(..., x[h * 2 + i - 1, w * 2 + j - 1, o * 16 + v], -3.4e38)
                y[h, w, o * 16 + v] = T.max(y[h, w, o * 16 + v], near)

Each number is reached in the same order as before, so it is the same to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import tvm
import tvm_ffi
from tvm import s_tir, tirx

from ..features import vector_bytes
from ..target import Target
from .fold_constants import is_scheduled
from .loops import (
    MIN_LANES,
    Access,
    buffer_of,
    divisor,
    map_functions,
    uses,
)

_FLOATS = ("float32", "float64")


@tvm.transform.module_pass(opt_level=0, name="bitenc.VectorizePools")
@dataclass(frozen=True)
class VectorizePools:
    """Vectorize maxima, minima and sums over windows, where channels lie side by side.

    Parameters
    ----------
    target : Target
        As of `Vectorize`.
    """

    target: Target

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        if not self._longest:
            return mod
        return map_functions(mod, self._vectorized, unless=is_scheduled)

    @property
    def _longest(self) -> int:
        return vector_bytes(self.target.features, self.target.architecture)

    def _vectorized(self, schedule: s_tir.Schedule) -> None:
        for rv in schedule.get_child_blocks(schedule.get_sblock("root")):
            if _is_pool(schedule.get(rv)):
                _without_padding(schedule, rv)
                _vectorize(schedule, rv, self._longest)


def _is_pool(block: s_tir.SBlock) -> bool:
    """Whether a block adds to, or compares with, its output one number of each step."""
    axes, store = block.iter_vars, block.body
    if block.init is None or not isinstance(store, tirx.BufferStore):
        return False
    if str(store.buffer.dtype) not in _FLOATS or not isinstance(
        store.value, (tirx.Add, tirx.Max, tirx.Min)
    ):
        return False
    operands = (store.value.a, store.value.b)
    if not all(isinstance(operand, tvm.ir.TensorLoad) for operand in operands):
        return False
    spatial = [axis for axis in axes if axis.iter_type == tirx.IterVar.DataPar]
    return (
        bool(spatial)
        and len(spatial) < len(axes)
        and list(axes[: len(spatial)]) == spatial
        and all(_is_along(access, spatial[-1].var) for access in (store, *operands))
    )


def _is_along(access: Access, channel: tirx.Var) -> bool:
    """Whether neighbours along the channels are neighbours in memory."""
    *others, last = access.indices
    return last.same_as(channel) and not any(uses(index, [channel]) for index in others)


def _without_padding(schedule: s_tir.Schedule, rv: s_tir.schedule.SBlockRV) -> None:
    """Read the input itself, where a block before copies it into a frame."""
    for producer in schedule.get_producers(rv):
        value = getattr(schedule.get(producer).body, "value", None)
        if not isinstance(value, tvm.ir.Call) or value.op.name != "prim.if_then_else":
            continue
        is_copy = isinstance(value.args[1], tvm.ir.TensorLoad)
        if is_copy and len(schedule.get_consumers(producer)) == 1:
            schedule.compute_inline(producer)


def _vectorize(schedule: s_tir.Schedule, rv: s_tir.schedule.SBlockRV, longest: int) -> None:
    block, loops = schedule.get(rv), schedule.get_loops(rv)
    reduced = sum(axis.iter_type == tirx.IterVar.CommReduce for axis in block.iter_vars)
    channel = len(loops) - reduced - 1  # Loops around it may be one that runs in parallel.
    channels = schedule.get(loops[channel]).extent if channel >= 0 else None
    whole = block.iter_vars[-reduced - 1].dom.extent
    if not isinstance(channels, tirx.IntImm) or not tvm_ffi.structural_equal(channels, whole):
        return
    nbytes = tvm.DataType(str(buffer_of(block.body).dtype)).itemsize
    lanes = divisor(int(channels), longest // nbytes)
    if lanes < MIN_LANES:
        return
    outer, inner = schedule.split(loops[channel], [None, lanes])
    schedule.reorder(outer, *loops[channel + 1 :], inner)
    schedule.vectorize(inner)
    schedule.decompose_reduction(rv, loops[channel + 1])
