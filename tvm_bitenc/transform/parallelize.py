"""Last of the TIR passes: loops of what stayed float run in parallel.

Before::

    for n, h, w, c in T.grid(1, 32, 32, 64): ...       # a fused float function

After::

    for n_h_w_fused in T.parallel(1024): for c in range(64): ...

Kernels from schedule rules are marked as scheduled, and left alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import tvm
from tvm import s_tir, tirx

from ..target import Target
from .fold_constants import is_scheduled

MIN_VALUES = 1 << 15  # Below, waking threads costs more than it saves.
MAX_TASKS = 64


@tvm.transform.module_pass(opt_level=0, name="bitenc.Parallelize")
@dataclass(frozen=True)
class Parallelize:
    """Fuse the outer spatial loops of every large block, and run them in parallel.

    Parameters
    ----------
    target : Target
        With one thread nothing changes.
    """

    target: Target

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        if self.target.threads == 1:
            return mod
        mod = mod.clone()
        for global_var, function in list(mod.functions_items()):
            if _has_loops(function) and not is_scheduled(function):
                mod[global_var] = _parallel(function)
        return mod


def _has_loops(function: tvm.ir.BaseFunc) -> bool:
    """Whether a function is loops over blocks; TVM's sort, say, is one call of its runtime."""
    if not isinstance(function, tirx.PrimFunc):
        return False
    realize = function.body
    return hasattr(realize, "block") and realize.block.name_hint == "root"


def _at_least(extent: tirx.Expr) -> int:
    """Iterations of a loop: 1 where it runs over a dynamic batch."""
    return int(extent) if isinstance(extent, tirx.IntImm) else 1


def _parallel(function: tirx.PrimFunc) -> tirx.PrimFunc:
    schedule = s_tir.Schedule(tvm.IRModule({"main": function}))
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        loops = schedule.get_loops(block)
        extents = [_at_least(schedule.get(loop).extent) for loop in loops]
        kinds = [var.iter_type for var in schedule.get(block).iter_vars]
        spatial = sum(kind == tirx.IterVar.DataPar for kind in kinds)
        if spatial < 2 or math.prod(extents) < MIN_VALUES or len(kinds) != len(loops):
            continue
        outer, tasks = [], 1
        for loop, extent in zip(loops[: spatial - 1], extents):
            if tasks >= MAX_TASKS:
                break
            outer.append(loop)
            tasks *= extent
        if tasks > 1:
            schedule.parallel(schedule.fuse(*outer) if len(outer) > 1 else outer[0])
    return schedule.mod["main"]
