"""Sums along a row of memory are sixteen sums, side by side, until the row ends.

Before::

    for i, k in T.grid(128, 384): y[i] = y[i] + x[i, k]

After::

    for i in range(128):
        for k in range(24):
            for lane in T.vectorized(16): part[lane] = part[lane] + x[i, k * 16 + lane]
        for lane in range(16): y[i] = y[i] + part[lane]

A sum waits for the one before it, and vectors add as many at once as they have lanes. Floats are
added in this order on every CPU, whatever its vectors: a network is the same bits everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import s_tir, tirx

from ..features import vector_bytes
from ..target import Target
from .fold_constants import is_scheduled
from .loops import divisor, map_functions, runs_along_memory, static_count

PARTS = 16
MIN_PARTS = 4  # Of a row that sixteen don't divide.


@tvm.transform.module_pass(opt_level=0, name="bitenc.PartialSums")
@dataclass(frozen=True)
class PartialSums:
    """Split sums and largest elements of rows, in functions that no rule scheduled.

    Parameters
    ----------
    target : Target
        One without vectors of floats adds the same parts one by one.
    """

    target: Target

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        return map_functions(mod, self._split_rows, unless=is_scheduled)

    def _split_rows(self, schedule: s_tir.Schedule) -> None:
        has_vectors = vector_bytes(self.target.features, self.target.architecture) > 0
        for rv in schedule.get_child_blocks(schedule.get_sblock("root")):
            loops = schedule.get_loops(rv)
            parts = _parts(schedule.get(rv)) if len(loops) > 1 else 1
            if parts >= MIN_PARTS and len(loops) == len(schedule.get(rv).iter_vars):
                _split(schedule, rv, loops, parts, has_vectors)


def _parts(block: s_tir.SBlock) -> int:
    """How many parts the sum of a row has; 1 for what is no sum of a row of floats."""
    *outer, last = block.iter_vars
    if block.init is None or last.iter_type != tirx.IterVar.CommReduce:
        return 1
    if any(axis.iter_type != tirx.IterVar.DataPar for axis in outer):
        return 1
    if not isinstance(block.body, tirx.BufferStore) or not isinstance(
        block.body.value, (tirx.Add, tirx.Max)
    ):
        return 1
    length = static_count(block, len(outer))
    is_row = runs_along_memory(block, len(outer))
    if str(block.body.value.ty) != "float32" or length is None or not is_row:
        return 1
    return divisor(length, min(PARTS, length // 2))


def _split(
    schedule: s_tir.Schedule,
    rv: s_tir.schedule.SBlockRV,
    loops: list[s_tir.schedule.LoopRV],
    parts: int,
    has_vectors: bool,
) -> None:
    """Sum each part by itself, where the whole is needed."""
    *outer, row = loops
    _, lane = schedule.split(row, [None, parts])
    part = schedule.rfactor(lane, len(outer))
    schedule.compute_at(part, schedule.get_loops(rv)[len(outer) - 1])
    *_, lane, along = schedule.get_loops(part)
    schedule.reorder(along, lane)
    if has_vectors:
        schedule.vectorize(lane)
    schedule.decompose_reduction(part, along)
