"""Indices of reshapes become plain where the sizes allow it.

Before::

    for i, j in T.grid(128, 1536): y[i, j] = x[(j // 1536 + i) % 128, j % 1536, 0, 0]

After::

    for i, j in T.grid(128, 1536): y[i, j] = x[i, j, 0, 0]

Only then do later passes see that such a loop moves nothing.
"""

from __future__ import annotations

import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.sym import Analyzer

from .fold_constants import is_scheduled
from .loops import map_bodies


@tvm.transform.module_pass(opt_level=0, name="bitenc.SimplifyIndices")
class SimplifyIndices:
    """Simplify what maps of functions that no rule scheduled read from."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        return map_bodies(mod, (s_tir.SBlock, _simplified), unless=is_scheduled)


def _simplified(block: s_tir.SBlock) -> s_tir.SBlock:
    if block.init is not None or not isinstance(block.body, tirx.BufferStore):
        return block  # TVM knows a sum by its index.
    analyzer = Analyzer()
    for axis in block.iter_vars:
        analyzer.bind(axis.var, axis.dom)

    def plain(load: tvm.ir.TensorLoad) -> tvm.ir.TensorLoad:
        return load.source[tuple(analyzer.simplify(index) for index in load.indices)]

    value = tvm_ffi.structural_map(block.body.value, [(tvm.ir.TensorLoad, plain)])
    if value.same_as(block.body.value):
        return block
    store = tirx.BufferStore(block.body.buffer, value, block.body.indices)
    return s_tir.SBlock(
        block.iter_vars,
        block.reads,
        block.writes,
        block.name_hint,
        store,
        annotations=block.annotations,
    )
