"""Float arithmetic between layers in vectors of the CPU's own length.

Before::

    for h, w, c in T.grid(5, 5, 384): y[h, w, c] = fence(x[h, w, c] * s[0]) + T.float32(3)

After::

    for i in range(600):
        for j in T.vectorized(16): y[i * 16 + j] = fence(x[i * 16 + j] * s[0]) + T.float32(3)

A transpose is done tile by tile, of a vector's length in both directions::

    for c, p in T.grid(64, 3136): y[c, p] = x[p, c]

    for p, c in T.grid(196, 4):
        for i in range(16):
            for j in T.vectorized(16): y[c * 16 + i, p * 16 + j] = x[p * 16 + j, c * 16 + i]

LLVM vectorizes no loop with a fence in it, which exact float arithmetic needs: it unrolls such a
loop instead, into thousands of instructions for one number at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import s_tir

from ..features import vector_bytes
from ..target import Target
from ..te.intrinsic import intrinsic
from .fold_constants import is_scheduled
from .loops import (
    buffer_of,
    divisor,
    is_map,
    loads_of,
    map_bodies,
    map_functions,
    runs_along_memory,
    static_count,
    transpose_tile,
)


@tvm.transform.module_pass(opt_level=0, name="bitenc.Vectorize")
@dataclass(frozen=True)
class Vectorize:
    """Vectorize the maps of functions that no rule scheduled, where they run along memory.

    Parameters
    ----------
    target : Target
        One without vectors of floats keeps its scalars; so does 32-bit ARM, whose vectors flush
        small numbers to zero.
    """

    target: Target

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        if not self._longest:
            return mod
        # TVM takes vectors of its own name apart again.
        mod = map_bodies(mod, (tvm.ir.Call, _in_llvms_word), unless=is_scheduled)
        return map_functions(mod, self._vectorized, unless=is_scheduled)

    @property
    def _longest(self) -> int:
        return vector_bytes(self.target.features, self.target.architecture)

    def _vectorized(self, schedule: s_tir.Schedule) -> None:
        for rv in schedule.get_child_blocks(schedule.get_sblock("root")):
            block = schedule.get(rv)
            if len(schedule.get_loops(rv)) == len(block.iter_vars) and _is_vectorizable(block):
                _vectorize(schedule, rv, self._longest) or _tile_transpose(schedule, rv)


def _in_llvms_word(call: tvm.ir.Call) -> tvm.ir.Call:
    """Round by LLVM's name."""
    if getattr(call.op, "name", "") != "tirx.nearbyint":
        return call
    return intrinsic(str(call.ty), "llvm.nearbyint", *call.args)


def _is_vectorizable(block: s_tir.SBlock) -> bool:
    """Whether a block is a map of numbers: a vector of truths is bits, in memory they are bytes."""
    return is_map(block) and "bool" not in _dtypes(block)


def _dtypes(block: s_tir.SBlock) -> set[str]:
    return {str(buffer_of(access).dtype) for access in (block.body, *loads_of(block))}


def _vectorize(schedule: s_tir.Schedule, rv: s_tir.schedule.SBlockRV, longest: int) -> bool:
    """Vectorize the last axes that are as good as one; say whether there are any.

    A vector has `longest` bytes at most.
    """
    block = schedule.get(rv)
    lanes = longest // max(tvm.DataType(dtype).itemsize for dtype in _dtypes(block))
    for first in range(len(block.iter_vars)):
        count = static_count(block, first)
        if count is None or not runs_along_memory(block, first):
            continue
        length, row = divisor(count, lanes), static_count(block, len(block.iter_vars) - 1)
        if row is not None and row > lanes and row % length:
            # TVM finds no line of memory in vectors that begin in one row and end in the next.
            length = divisor(row, lanes)
        if 2 * length <= lanes:  # Most lanes would idle.
            return False
        schedule.vectorize(_split(schedule, schedule.get_loops(rv)[first:], length)[1])
        return True
    return False


def _tile_transpose(schedule: s_tir.Schedule, rv: s_tir.schedule.SBlockRV) -> bool:
    """Tile a transpose, so that lines of memory are read and written once; say whether it is one.

    Loads of a vector are as many as its lanes, from lines that the rows of a tile share.
    """
    block = schedule.get(rv)
    lengths = transpose_tile(block)
    if lengths is None:
        return False
    (first, axis), (rows, lanes) = lengths
    loops = schedule.get_loops(rv)
    outer = [loop for i, loop in enumerate(loops[:first]) if i != axis]
    far, near = _split(schedule, loops[first:], lanes)
    tiles, row = schedule.split(loops[axis], [None, rows])
    schedule.reorder(*outer, far, tiles, row, near)
    schedule.vectorize(near)
    return True


def _split(schedule: s_tir.Schedule, loops: list[s_tir.schedule.LoopRV], length: int) -> tuple:
    whole = schedule.fuse(*loops) if len(loops) > 1 else loops[0]
    return tuple(schedule.split(whole, [None, length]))
