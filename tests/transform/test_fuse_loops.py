"""Tests of float functions: one loop over the elements, whose values are the same as of many."""

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import tirx as T

import tvm_bitenc as be
from tvm_bitenc.transform.fuse_loops import MAX_SIZE, FuseLoops


def test_golden():
    @I.ir_module
    class Before:
        @T.prim_func(s_tir=True)
        def main(x: T.Buffer((4, 16), "float32"), y: T.Buffer((4, 16), "float32")):
            shifted = T.sblock_alloc_buffer((4, 16))
            for i, j in T.grid(4, 16):
                with T.sblock("add"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    shifted[vi, vj] = x[vi, vj] + T.float32(3)
            for i, j in T.grid(4, 16):
                with T.sblock("multiply"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    y[vi, vj] = x[vi, vj] * shifted[vi, vj]

    @I.ir_module
    class After:
        @T.prim_func(s_tir=True)
        def main(x: T.Buffer((4, 16), "float32"), y: T.Buffer((4, 16), "float32")):
            for i, j in T.grid(4, 16):
                with T.sblock("multiply"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    y[vi, vj] = x[vi, vj] * (x[vi, vj] + T.float32(3))

    mod = Before.clone()
    tvm.ir.assert_structural_equal(FuseLoops()(mod), After)
    tvm.ir.assert_structural_equal(mod, Before)


@I.ir_module
class Moved:
    """An output of its own, a shift, a sum over rows and a kernel of a rule."""

    @T.prim_func(s_tir=True)
    def both(
        x: T.Buffer((4,), "float32"), a: T.Buffer((4,), "float32"), b: T.Buffer((4,), "float32")
    ):
        for i in range(4):
            with T.sblock("a"):
                vi = T.axis.spatial(4, i)
                a[vi] = x[vi] + T.float32(1)
        for i in range(4):
            with T.sblock("b"):
                vi = T.axis.spatial(4, i)
                b[vi] = a[vi] + T.float32(1)

    @T.prim_func(s_tir=True)
    def shifted(x: T.Buffer((5,), "float32"), y: T.Buffer((4,), "float32")):
        a = T.sblock_alloc_buffer((5,))
        for i in range(5):
            with T.sblock("a"):
                vi = T.axis.spatial(5, i)
                a[vi] = x[vi] + T.float32(1)
        for i in range(4):
            with T.sblock("y"):
                vi = T.axis.spatial(4, i)
                y[vi] = a[vi + 1]

    @T.prim_func(s_tir=True)
    def summed(x: T.Buffer((4, 4), "float32"), y: T.Buffer((4,), "float32")):
        a = T.sblock_alloc_buffer((4, 4))
        for i, j in T.grid(4, 4):
            with T.sblock("a"):
                vi, vj = T.axis.remap("SS", [i, j])
                a[vi, vj] = x[vi, vj] + T.float32(1)
        for i, j in T.grid(4, 4):
            with T.sblock("y"):
                vi, vj = T.axis.remap("SR", [i, j])
                with T.init():
                    y[vi] = T.float32(0)
                y[vi] = y[vi] + a[vi, vj]

    @T.prim_func(s_tir=True)
    def kernel(x: T.Buffer((4,), "float32"), y: T.Buffer((4,), "float32")):
        T.func_attr({"tirx.is_scheduled": True})
        a = T.sblock_alloc_buffer((4,))
        for i in range(4):
            with T.sblock("a"):
                vi = T.axis.spatial(4, i)
                a[vi] = x[vi] + T.float32(1)
        for i in range(4):
            with T.sblock("y"):
                vi = T.axis.spatial(4, i)
                y[vi] = a[vi] + T.float32(1)


@pytest.mark.parametrize("name", ["both", "shifted", "summed", "kernel"])
def test_what_keeps_its_loops(name):
    mod = tvm.IRModule({name: Moved[name]})
    tvm.ir.assert_structural_equal(FuseLoops()(mod), mod)


def test_what_a_transpose_reads_is_computed_in_it():
    @I.ir_module
    class Before:
        @T.prim_func(s_tir=True)
        def main(x: T.Buffer((16, 32), "float32"), y: T.Buffer((32, 16), "float32")):
            doubled = T.sblock_alloc_buffer((16, 32))
            for i, j in T.grid(16, 32):
                with T.sblock("double"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    doubled[vi, vj] = x[vi, vj] * T.float32(2)
            for i, j in T.grid(32, 16):
                with T.sblock("transpose"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    y[vi, vj] = doubled[vj, vi]

    @I.ir_module
    class After:
        @T.prim_func(s_tir=True)
        def main(x: T.Buffer((16, 32), "float32"), y: T.Buffer((32, 16), "float32")):
            for i, j in T.grid(32, 16):
                with T.sblock("transpose"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    y[vi, vj] = x[vj, vi] * T.float32(2)

    tvm.ir.assert_structural_equal(FuseLoops()(Before), After)


def test_what_is_used_again_and_again_isnt_computed_again_and_again(module_of):
    """Doubling 24 times would be an expression of 2^24 terms."""

    def body(builder, x):
        for _ in range(24):
            x = builder.emit(relax.op.subtract(x, builder.emit(relax.op.negative(x))))
        return x

    mod = module_of([(5, 8)], body)
    assert MAX_SIZE < 2**24
    x = np.random.default_rng(0).normal(size=(5, 8)).astype("float32")
    assert np.array_equal(be.build(mod)(x), x * 2**24)
