"""Float arithmetic between layers: one loop over the elements, not one for every op.

Before::

    for i in range(64): sum_1[i] = x[i] + T.float32(3)
    for i in range(64): y[i] = x[i] * sum_1[i]

After::

    for i in range(64): y[i] = x[i] * fence(x[i] + T.float32(3))

Each value is fenced, so it is what it was in memory: no sum is contracted with the product before
it, or simplified with another one.

TVM's own fusion puts ops into one function, whose loops then pass every element through memory.
Only loops that read the very element that another wrote are joined, and transposes with what they
read; what else moves elements, as padding does, and what sums over them, keeps a loop of its own.
"""

from __future__ import annotations

import tvm
from tvm import s_tir, tirx

from ..te.rounded import rounded
from .fold_constants import is_scheduled
from .loops import (
    Access,
    buffer_of,
    is_constant,
    is_map,
    loads_of,
    map_functions,
    runs_along_memory,
    size_of,
    transpose_tile,
)

_FENCED = ("float32", "float64")
_NARROW = ("float16", "bfloat16")  # TVM computes them as float32, so a fence would be too late.
MAX_SIZE = 64  # Nodes of what is computed more than once, in all: LLVM finds it, but takes time.


@tvm.transform.module_pass(opt_level=0, name="bitenc.FuseLoops")
class FuseLoops:
    """Compute values where they are used, in functions that no rule scheduled."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        return map_functions(mod, _fused, unless=is_scheduled)


def _fused(schedule: s_tir.Schedule) -> None:
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        if _can_be_inlined(schedule, block):
            _fence(schedule, block)
            schedule.compute_inline(block)


def _fence(schedule: s_tir.Schedule, rv: s_tir.schedule.SBlockRV) -> None:
    """Round the value of a map on its own."""
    block = schedule.get(rv)
    buffer, value, indices = block.body.buffer, block.body.value, list(block.body.indices)
    if str(value.ty) in _FENCED:
        store = tirx.BufferStore(buffer, rounded(value), indices)
        parts = block.iter_vars, block.reads, block.writes, block.name_hint, store
        fenced = s_tir.SBlock(*parts, annotations=block.annotations)
        schedule.state.replace(schedule.get_sref(rv), fenced, {block: fenced})


def _can_be_inlined(schedule: s_tir.Schedule, block: s_tir.schedule.SBlockRV) -> bool:
    written = schedule.get(block)
    consumers = [schedule.get(consumer) for consumer in schedule.get_consumers(block)]
    if not consumers or not all(is_map(b) for b in (written, *consumers)):
        return False
    if str(written.body.value.ty) in _NARROW or not runs_along_memory(
        written, len(written.iter_vars) - 1
    ):
        return False
    buffer = written.body.buffer
    if not any(
        buffer.same_as(own) for own in schedule.get(schedule.get_sblock("root")).alloc_buffers
    ):
        return False  # It is an output of the function as well.
    uses = [(b, load) for b in consumers for load in loads_of(b) if buffer_of(load).same_as(buffer)]
    if not all(_is_same_element(b, load) for b, load in uses):
        return len(uses) == 1 and _is_transposed(*uses[0])
    return len(uses) == 1 or len(uses) * size_of(written) <= MAX_SIZE


def _is_same_element(block: s_tir.SBlock, load: Access) -> bool:
    """Whether a block reads a buffer where it writes its own."""
    axes, indices = _longer_than_one(block, load)
    return len(axes) == len(indices) and all(
        index.same_as(axis.var) for index, axis in zip(indices, axes)
    )


def _longer_than_one(
    block: s_tir.SBlock, load: Access
) -> tuple[list[tirx.IterVar], list[tirx.Expr]]:
    """Return axes of a block and indices of what it reads, without those of one element."""
    axes = [axis for axis in block.iter_vars if not is_constant(axis.dom.extent, 1)]
    return axes, [index for index in load.indices if not is_constant(index, 0)]


def _is_transposed(block: s_tir.SBlock, load: Access) -> bool:
    """Whether a block reads each element of a buffer once, in another order, tile by tile."""
    axes, indices = _longer_than_one(block, load)
    read = [[index.same_as(axis.var) for axis in axes] for index in indices]
    is_permutation = all(sum(row) == 1 for row in read) and all(sum(c) == 1 for c in zip(*read))
    return is_permutation and transpose_tile(block) is not None
