"""Float arithmetic between layers in vectors of the CPU's own length.

Before::

    for h, w, c in T.grid(5, 5, 384): y[h, w, c] = fence(x[h, w, c] * s[0]) + T.float32(3)

After::

    for i in range(600):
        for j in T.vectorized(16): y[i * 16 + j] = fence(x[i * 16 + j] * s[0]) + T.float32(3)

LLVM vectorizes no loop with a fence in it, which exact float arithmetic needs: it unrolls such a
loop instead, into thousands of instructions for one number at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import tvm
from tvm import s_tir, tirx

from ..target import Target
from .fold_constants import is_scheduled
from .loops import buffer_of, is_map, loads_of, map_functions, runs_along_memory

_VECTOR_BYTES = {"avx512f": 64, "avx2": 32, "avx": 32}


@tvm.transform.module_pass(opt_level=0, name="bitenc.Vectorize")
@dataclass(frozen=True)
class Vectorize:
    """Vectorize the maps of functions that no rule scheduled, where they run along memory.

    Parameters
    ----------
    target : Target
        32-bit ARM keeps its scalars: its vectors flush small numbers to zero.
    """

    target: Target

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        if self.target.architecture.startswith(("armv", "thumb")):
            return mod
        return map_functions(mod, self._vectorized, unless=is_scheduled)

    def _vectorized(self, schedule: s_tir.Schedule) -> None:
        features = self.target.features
        vector_bytes = next((n for name, n in _VECTOR_BYTES.items() if name in features), 16)
        for block in schedule.get_child_blocks(schedule.get_sblock("root")):
            first, lanes = _vector(schedule.get(block), vector_bytes)
            loops = schedule.get_loops(block)
            if lanes > 1 and len(loops) == len(schedule.get(block).iter_vars):
                inner = loops[first:]
                whole = schedule.fuse(*inner) if len(inner) > 1 else inner[0]
                schedule.vectorize(schedule.split(whole, [None, lanes])[1])


def _vector(block: tirx.SBlock, vector_bytes: int) -> tuple[int, int]:
    """First of the axes that are as good as one, and how many of its elements are a vector."""
    if not is_map(block):
        return 0, 1
    dtypes = {str(buffer_of(access).dtype) for access in (block.body, *loads_of(block))}
    if "bool" in dtypes:  # A vector of these is bits, in memory they are bytes.
        return 0, 1
    extents = [axis.dom.extent for axis in block.iter_vars]
    lanes = vector_bytes // max(tvm.DataType(dtype).itemsize for dtype in dtypes)
    for first in range(len(extents)):
        inner = extents[first:]
        if all(isinstance(n, tirx.IntImm) for n in inner) and runs_along_memory(block, first):
            return first, _divisor(math.prod(int(n) for n in inner), lanes)
    return 0, 1


def _divisor(count: int, lanes: int) -> int:
    """Largest divisor of a count up to `lanes`; 1 where it would leave most lanes idle."""
    found = next((n for n in range(lanes, 0, -1) if count % n == 0), 1)
    return found if 2 * found > lanes else 1
