"""Tests of float functions: one loop over the elements, whose values are the same as of many."""

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.script import ir as I
from tvm.script import tirx as T

import tvm_bitenc as be
from tvm_bitenc.te.rounded import rounded
from tvm_bitenc.transform.fuse_loops import FuseLoops

FENCE = rounded(tirx.const(0.0, "float32")).args[0]


def fence(value):
    return T.call_llvm_pure_intrin("float32", FENCE, value)


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
                    y[vi, vj] = x[vi, vj] * fence(x[vi, vj] + T.float32(3))

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


def test_the_others_beside_an_output_are_joined():
    @I.ir_module
    class Before:
        @T.prim_func(s_tir=True)
        def main(
            x: T.Buffer((4,), "float32"), a: T.Buffer((4,), "float32"), b: T.Buffer((4,), "float32")
        ):
            shifted = T.sblock_alloc_buffer((4,))
            for i in range(4):
                with T.sblock("shift"):
                    vi = T.axis.spatial(4, i)
                    shifted[vi] = x[vi] + T.float32(1)
            for i in range(4):
                with T.sblock("a"):
                    vi = T.axis.spatial(4, i)
                    a[vi] = shifted[vi] + T.float32(2)
            for i in range(4):
                with T.sblock("b"):
                    vi = T.axis.spatial(4, i)
                    b[vi] = a[vi] + T.float32(3)

    @I.ir_module
    class After:
        @T.prim_func(s_tir=True)
        def main(
            x: T.Buffer((4,), "float32"), a: T.Buffer((4,), "float32"), b: T.Buffer((4,), "float32")
        ):
            for i in range(4):
                with T.sblock("a"):
                    vi = T.axis.spatial(4, i)
                    a[vi] = fence(x[vi] + T.float32(1)) + T.float32(2)
            for i in range(4):
                with T.sblock("b"):
                    vi = T.axis.spatial(4, i)
                    b[vi] = a[vi] + T.float32(3)

    tvm.ir.assert_structural_equal(FuseLoops()(Before), After)


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
                    doubled[vi, vj] = x[vi, vj] + x[vi, vj]
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
                    y[vi, vj] = fence(x[vj, vi] + x[vj, vi])

    tvm.ir.assert_structural_equal(FuseLoops()(Before), After)


def test_what_is_used_again_and_again_isnt_computed_again_and_again(module_of):
    """Doubling 24 times would be an expression of 2^24 terms."""

    def body(builder, x):
        for _ in range(24):
            x = builder.emit(relax.op.add(x, builder.emit(relax.op.abs(x))))
        return x

    mod = module_of([(5, 8)], body)
    x = np.random.default_rng(0).uniform(size=(5, 8)).astype("float32")
    assert np.array_equal(be.build(mod)(x), x * 2**24)


ROUNDED = {
    "multiply": (lambda x: relax.op.multiply(x, x), lambda x: x * x),
    "square": (relax.op.square, lambda x: x * x),
    "selected": (
        lambda x: relax.op.nn.leakyrelu(x, 0.3),
        lambda x: np.where(x > 0, x, x * np.float32(0.3)),
    ),
}


@pytest.mark.parametrize("name", ROUNDED)
def test_a_product_beside_a_sum_rounds_on_its_own(name, module_of, same):
    op, expected = ROUNDED[name]
    x, y = np.random.default_rng(0).normal(size=(2, 4, 64)).astype("float32")

    def body(builder, x, y):
        return builder.emit(relax.op.add(builder.emit(op(x)), y))

    lib = be.build(module_of([x.shape, y.shape], body))
    assert same(lib(x, y), expected(x) + y)


def test_softplus_by_the_trick_of_log1p(module_of, same):
    """(u - 1) must be of the very u whose logarithm is taken: u = 1 + exp(-|x|), rounded."""
    ends = np.linspace(-16, 0, 64, dtype=np.float32)[None]

    def body(builder, x):
        e = builder.emit(relax.op.exp(x))
        u = builder.emit(relax.op.add(e, relax.const(np.float32(1))))
        return [e, builder.emit(relax.op.subtract(u, relax.const(np.float32(1))))]

    e, rest = be.build(module_of([ends.shape], body))(ends)
    assert same(rest, (e + np.float32(1)) - np.float32(1))
