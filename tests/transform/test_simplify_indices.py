"""Reshapes that move nothing have plain indices, and sums keep theirs."""

import tvm
from tvm.script import ir as I
from tvm.script import tirx as T

from tvm_bitenc.transform.simplify_indices import SimplifyIndices


def test_golden():
    @I.ir_module
    class Before:
        @T.prim_func(s_tir=True)
        def main(x: T.Buffer((8, 16, 1), "float32"), y: T.Buffer((1, 8, 16), "float32")):
            for a, i, j in T.grid(1, 8, 16):
                with T.sblock("reshape"):
                    va, vi, vj = T.axis.remap("SSS", [a, i, j])
                    y[va, vi, vj] = x[(vj // 16 + vi) % 8, vj % 16, va]

    @I.ir_module
    class After:
        @T.prim_func(s_tir=True)
        def main(x: T.Buffer((8, 16, 1), "float32"), y: T.Buffer((1, 8, 16), "float32")):
            for a, i, j in T.grid(1, 8, 16):
                with T.sblock("reshape"):
                    va, vi, vj = T.axis.remap("SSS", [a, i, j])
                    T.reads(x[(vj // 16 + vi) % 8, vj % 16, va])
                    y[va, vi, vj] = x[vi, vj, 0]

    tvm.ir.assert_structural_equal(SimplifyIndices()(Before), After)


def test_what_moves_elements_and_what_sums_them_stays():
    @I.ir_module
    class Others:
        @T.prim_func(s_tir=True)
        def main(x: T.Buffer((4, 16), "float32"), y: T.Buffer((8, 8)), s: T.Buffer((1,))):
            for i, j in T.grid(8, 8):
                with T.sblock("reshape"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    y[vi, vj] = x[vi // 2, vi % 2 * 8 + vj]
            for i, k in T.grid(1, 8):
                with T.sblock("sum"):
                    vi, vk = T.axis.remap("SR", [i, k])
                    with T.init():
                        s[vi] = T.float32(0)
                    s[vi] = s[vi] + y[0, vk]

    tvm.ir.assert_structural_equal(SimplifyIndices()(Others), Others)
