"""How a network's code is made."""

import tvm
import tvm_ffi
from tvm import s_tir
from tvm.script import ir as I
from tvm.script import tirx as T

from tvm_bitenc.entry.code import _CompactBufferAllocation


@I.ir_module
class Functions:
    @T.prim_func(private=True, s_tir=True)
    def shrinks(x: T.Buffer((64,), "float32"), y: T.Buffer((64,), "float32")):
        t = T.sblock_alloc_buffer((64,), "float32")
        for i in range(64):
            with T.sblock("t"):
                v = T.axis.spatial(64, i)
                t[v] = x[v] + T.float32(1)
            with T.sblock("y"):
                v = T.axis.spatial(64, i)
                y[v] = t[v] * T.float32(2)

    @T.prim_func(private=True, s_tir=True)
    def allocates_nothing(x: T.Buffer((64,), "float32"), y: T.Buffer((64,), "float32")):
        for i in range(64):
            with T.sblock("y"):
                v = T.axis.spatial(64, i)
                y[v] = x[v] * T.float32(2)


def test_buffers_are_made_compact_as_tvm_does():
    before = tvm.transform.Sequential(
        [
            s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
            s_tir.transform.ConvertBlocksToOpaque(),
        ]
    )(Functions)
    found = _CompactBufferAllocation()(before)
    tvm.ir.assert_structural_equal(found, s_tir.transform.CompactBufferAllocation()(before))
    assert not tvm_ffi.structural_equal(found["shrinks"], before["shrinks"])
    assert found["allocates_nothing"].same_as(before["allocates_nothing"])
