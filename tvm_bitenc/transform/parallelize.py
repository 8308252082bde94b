"""Last of the TIR passes: loops of what stayed float run in parallel.

Before::

    for n, h, w, c in T.grid(1, 32, 32, 64): ...       # a fused float function

After::

    for n_h_fused in T.parallel(32): for w, c in T.grid(32, 64): ...

Kernels from schedule rules are marked as scheduled, and left alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import tvm
from tvm import s_tir, tirx

from ..target import Target
from .fold_constants import is_scheduled
from .loops import map_bodies, map_functions

MIN_VALUES = 1 << 15  # Below, waking threads costs more than it saves.
MAX_TASKS = 32  # Where rows are enough, dividing them costs more than it balances.


@tvm.transform.module_pass(opt_level=0, name="bitenc.Parallelize")
@dataclass(frozen=True)
class Parallelize:
    """Fuse the outer spatial loops of every large block, and run them in parallel.

    Parameters
    ----------
    target : Target
        With one thread no loop is left parallel, of TVM's own kernels either.
    """

    target: Target

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        if self.target.threads == 1:
            return map_bodies(mod, (tirx.For, _serial))
        return map_functions(mod, _parallel, unless=is_scheduled)


def _serial(loop: tirx.For) -> tirx.For:
    if loop.kind != tirx.ForKind.PARALLEL:
        return loop
    return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, loop.body)


def _at_least(extent: tirx.Expr) -> int:
    """Iterations of a loop: 1 where it runs over a dynamic batch."""
    return int(extent) if isinstance(extent, tirx.IntImm) else 1


def _parallel(schedule: s_tir.Schedule) -> None:
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        loops = [schedule.get(loop) for loop in schedule.get_loops(block)]
        extents = [_at_least(loop.extent) for loop in loops]
        candidates = _outer(schedule.get(block), loops)
        if math.prod(extents) < MIN_VALUES or not candidates:
            continue
        outer, tasks = [], 1
        for loop, extent in zip(schedule.get_loops(block)[:candidates], extents):
            if tasks >= MAX_TASKS:
                break
            outer.append(loop)
            tasks *= extent
        if tasks > 1:
            schedule.parallel(schedule.fuse(*outer) if len(outer) > 1 else outer[0])


def _outer(block: s_tir.SBlock, loops: list[tirx.For]) -> int:
    """How many of a block's loops, from the outermost, may run in parallel and leave one inside."""
    spatial = sum(axis.iter_type == tirx.IterVar.DataPar for axis in block.iter_vars)
    if loops and loops[-1].kind == tirx.ForKind.VECTORIZED:
        return len(loops) - 1
    return spatial - 1 if len(loops) == len(block.iter_vars) else 0
