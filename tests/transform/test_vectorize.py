"""Tests of float functions in vectors: the code is short, and its numbers are those of scalars."""

import re

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax
from tvm.script import ir as I
from tvm.script import tirx as T

import tvm_bitenc as be
from tvm_bitenc.target import Target, load_target
from tvm_bitenc.transform.vectorize import Vectorize


def vectorized(mod, target="x86-64-v3"):
    return Vectorize(load_target(target))(mod)


def test_golden():
    @I.ir_module
    class Before:
        @T.prim_func(s_tir=True)
        def main(
            x: T.Buffer((5, 384), "float32"),
            s: T.Buffer((1,), "float32"),
            y: T.Buffer((5, 384), "float32"),
        ):
            for i, j in T.grid(5, 384):
                with T.sblock("multiply"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    y[vi, vj] = x[vi, vj] * s[0]

    @I.ir_module
    class After:
        @T.prim_func(s_tir=True)
        def main(
            x: T.Buffer((5, 384), "float32"),
            s: T.Buffer((1,), "float32"),
            y: T.Buffer((5, 384), "float32"),
        ):
            for o in range(240):
                for v in T.vectorized(8):
                    with T.sblock("multiply"):
                        vi = T.axis.spatial(5, (o * 8 + v) // 384)
                        vj = T.axis.spatial(384, (o * 8 + v) % 384)
                        y[vi, vj] = x[vi, vj] * s[0]

    mod = Before.clone()
    tvm.ir.assert_structural_equal(vectorized(mod), After)
    tvm.ir.assert_structural_equal(mod, Before)


def added(shape, operand, dtype="float32"):
    """y = x + b for x and y of one shape, b of another that broadcasts to it."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(shape, dtype))
    b = relax.Var("b", relax.TensorType(operand, dtype))
    with builder.function("main", [x, b]):
        builder.emit_func_output(builder.emit(relax.op.add(x, b)))
    mod = relax.transform.LegalizeOps()(builder.get())
    return tvm.IRModule({"add": mod["add"]})


def lanes_of(mod):
    """How long a module's vectors are; None where it has none."""
    found = re.search(r"T\.vectorized\((?:T\.int64\()?(\d+)", mod.script())
    return found and int(found.group(1))


@pytest.mark.parametrize(
    "shape, operand, lanes",
    [
        ((1, 5, 5, 384), (1, 5, 5, 384), 8),
        ((1, 5, 5, 384), (384,), 8),  # Per channel, channels last.
        ((2, 6, 4, 6), (6, 1, 1), 8),  # Per channel, channels first: 24 numbers lie in a row.
        ((2, 6, 7, 7), (6, 1, 1), 7),
        ((3, 1000), (3, 1000), 8),
        ((3, 3, 5), (3, 3, 5), 5),
        ((2, 13), (13,), None),  # Vectors of one number would be no gain.
        ((16, 16), (16, 1), 8),
        ((1, 6, 56, 56), (1, 6, 56, 56), 8),
        ((1, 6, 28, 28), (1, 6, 28, 28), 7),  # Eight would begin in one row and end in the next.
        ((0, 16), (0, 16), None),
    ],
    ids=str,
)
def test_lanes(shape, operand, lanes):
    assert lanes_of(vectorized(added(shape, operand))) == lanes


@pytest.mark.parametrize(
    "target, lanes",
    [
        *[("znver5", 16), ("x86-64-v3", 8), ("cortex-a72", 4), ("armv7-neon", None)],
        *[("cortex-m4", None), ("riscv64", None), ("riscv64-v", None)],
    ],
)
def test_vectors_are_those_of_the_target(target, lanes):
    """32-bit ARM's vectors flush small numbers to zero, so it keeps its scalars."""
    assert lanes_of(vectorized(added((4, 64), (4, 64)), target)) == lanes


@pytest.mark.parametrize(
    "triple, has_vectors",
    [
        ("arm-linux-gnueabihf", False),
        ("armv7a-linux-gnueabihf", False),
        ("thumbv7-none-eabi", False),
        ("aarch64-linux-gnu", True),
    ],
)
def test_32_bit_arm_by_any_name(triple, has_vectors):
    tvm_target = tvm.target.Target({"kind": "llvm", "mtriple": triple})
    mod = Vectorize(Target("board", tvm_target, ("generic",)))(added((4, 64), (4, 64)))
    assert bool(lanes_of(mod)) == has_vectors


def test_transposes_are_tiled():
    @I.ir_module
    class Before:
        @T.prim_func(s_tir=True)
        def main(x: T.Buffer((7, 8, 64), "float32"), y: T.Buffer((64, 7, 8), "float32")):
            for c, h, w in T.grid(64, 7, 8):
                with T.sblock("transpose"):
                    vc, vh, vw = T.axis.remap("SSS", [c, h, w])
                    y[vc, vh, vw] = x[vh, vw, vc]

    @I.ir_module
    class After:
        @T.prim_func(s_tir=True)
        def main(x: T.Buffer((7, 8, 64), "float32"), y: T.Buffer((64, 7, 8), "float32")):
            for p, o, i in T.grid(4, 4, 16):
                for j in T.vectorized(14):
                    with T.sblock("transpose"):
                        vc = T.axis.spatial(64, o * 16 + i)
                        vh = T.axis.spatial(7, (p * 14 + j) // 8)
                        vw = T.axis.spatial(8, (p * 14 + j) % 8)
                        y[vc, vh, vw] = x[vh, vw, vc]

    tvm.ir.assert_structural_equal(vectorized(Before), After)


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.sampled_from([1, 2, 3, 5, 8, 16, 20]), min_size=2, max_size=4),
    st.randoms(use_true_random=False),
    st.sampled_from(["float32", "uint8"]),
)
def test_transposes_of_any_order(module_of, same, shape, random, dtype):
    order = random.sample(range(len(shape)), len(shape))

    def body(builder, x):
        y = builder.emit(relax.op.add(x, relax.const(np.ones((), dtype))))
        y = builder.emit(relax.op.permute_dims(y, order))
        return builder.emit(relax.op.maximum(y, relax.const(np.full((), 40, dtype))))

    x = np.arange(np.prod(shape)).astype(dtype).reshape(shape)
    expected = np.maximum((x + np.ones((), dtype)).transpose(order), np.full((), 40, dtype))
    assert same(be.build(module_of([shape], body, dtype))(x), expected)


@pytest.mark.sweep(4)
@pytest.mark.parametrize(
    "name",
    [
        *("exp", "tanh", "sinh", "cosh", "sigmoid", "erf", "log", "rsqrt", "asin", "atan", "tan"),
        *("sqrt", "floor", "ceil", "round", "trunc", "abs"),
    ],
)
def test_numbers_are_the_same_in_vectors(name, module_of, same):
    """A row that fills vectors, and one that doesn't, have the same numbers."""
    x = np.random.default_rng(0).uniform(-4, 4, size=(1, 64)).astype("float32")

    def body(builder, x):
        return builder.emit(getattr(relax.op, name)(builder.emit(relax.op.negative(x))))

    whole = be.build(module_of([x.shape], body))(x)
    parts = be.build(module_of([(1, 1)], body))
    assert same(whole, np.concatenate([parts(x[:, i : i + 1]) for i in range(64)], axis=1))


def test_bools_are_bytes_in_memory(module_of, same):
    def body(builder, x):
        is_large = builder.emit(relax.op.greater(x, relax.const(0.0)))
        return [is_large, builder.emit(relax.op.where(is_large, x, relax.const(-1.0)))]

    x = np.random.default_rng(0).normal(size=(3, 64)).astype("float32")
    is_large, y = be.build(module_of([x.shape], body))(x)
    assert same(is_large, x > 0) and same(y, np.where(x > 0, x, np.float32(-1)))


def hard_swish(builder, x, shift):
    """x * clip(x + 3) / 6 + shift, as converters write it."""
    y = builder.emit(relax.op.add(x, relax.const(3.0)))
    y = builder.emit(
        relax.op.minimum(builder.emit(relax.op.maximum(y, relax.const(0.0))), relax.const(6.0))
    )
    y = builder.emit(relax.op.divide(builder.emit(relax.op.multiply(x, y)), relax.const(6.0)))
    return builder.emit(relax.op.add(y, relax.const(shift)))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(0, 3), st.booleans())
def test_numbers_are_numpys(module_of, same, shape, axis, is_per_channel):
    rng = np.random.default_rng(0)
    sizes = [n if i == axis % len(shape) else 1 for i, n in enumerate(shape)]
    shift = rng.normal(size=sizes if is_per_channel else ()).astype("float32")
    x = rng.normal(scale=3, size=shape).astype("float32")
    y = be.build(module_of([shape], lambda b, x: hard_swish(b, x, shift)))(x)
    clipped = np.clip(x + np.float32(3), np.float32(0), np.float32(6))
    assert same(y, x * clipped / np.float32(6) + shift)


def test_the_code_is_short(module_of):
    """Unrolled scalars were 288,000 lines, and took LLVM a minute."""
    mod = module_of([(1, 5, 5, 384)], lambda b, x: hard_swish(b, x, np.float32(1)))
    lib = be.build(mod, "x86-64-v3", threads=1)
    library = lib.program.network.module
    assembly = library.inspect_source("asm")
    assert "mulps" in assembly and len(assembly.splitlines()) < 2000
    assert "Mismatched" not in assembly  # The machine checks the input, the kernel need not.


def test_quantizers_are_vectors(module_of):
    """TVM's `nearbyint` in a vector is a loop over its lanes, which LLVM turns into gathers."""
    mod = module_of([(1, 64)], lambda b, x: b.emit(relax.op.round(x)))
    assembly = be.build(mod, "x86-64-v4", threads=1).program.network.module.inspect_source("asm")
    assert "vrndscaleps" in assembly and "zmm" in assembly and "gather" not in assembly
