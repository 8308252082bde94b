"""Pools in vectors: the same numbers in the same order, and no padded copy."""

import numpy as np
import pytest
import torch
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax, tirx
from tvm.script import ir as I
from tvm.script import tirx as T

import tvm_bitenc as be
from tvm_bitenc.target import load_target
from tvm_bitenc.transform.pipeline import kernel_calls
from tvm_bitenc.transform.vectorize_pools import VectorizePools


def vectorized(mod, target="x86-64-v3"):
    return VectorizePools(load_target(target))(mod)


def test_golden():
    @I.ir_module
    class Before:
        @T.prim_func(s_tir=True)
        def main(x: T.Buffer((6, 16), "float32"), y: T.Buffer((5, 16), "float32")):
            frame = T.sblock_alloc_buffer((8, 16))
            for h, c in T.grid(8, 16):
                with T.sblock("frame"):
                    vh, vc = T.axis.remap("SS", [h, c])
                    frame[vh, vc] = T.if_then_else(vh >= 1 and vh < 7, x[vh - 1, vc], T.float32(-9))
            for h, c, k in T.grid(5, 16, 3):
                with T.sblock("pool"):
                    vh, vc, vk = T.axis.remap("SSR", [h, c, k])
                    with T.init():
                        y[vh, vc] = T.float32(-9)
                    y[vh, vc] = T.max(y[vh, vc], frame[vh + vk, vc])

    @I.ir_module
    class After:
        @T.prim_func(s_tir=True)
        def main(x: T.Buffer((6, 16), "float32"), y: T.Buffer((5, 16), "float32")):
            for h, o in T.grid(5, 2):
                for v in T.vectorized(8):
                    with T.sblock("pool_init"):
                        vh = T.axis.spatial(5, h)
                        vc = T.axis.spatial(16, o * 8 + v)
                        y[vh, vc] = T.float32(-9)
                for k in range(3):
                    for v in T.vectorized(8):
                        with T.sblock("pool_update"):
                            vh = T.axis.spatial(5, h)
                            vc = T.axis.spatial(16, o * 8 + v)
                            vk = T.axis.reduce(3, k)
                            y[vh, vc] = T.max(
                                y[vh, vc],
                                T.if_then_else(
                                    vh + vk >= 1 and vh + vk < 7, x[vh + vk - 1, vc], T.float32(-9)
                                ),
                            )

    mod = Before.clone()
    tvm.ir.assert_structural_equal(vectorized(mod), After)
    tvm.ir.assert_structural_equal(mod, Before)


@pytest.mark.parametrize("target", ["armv7-neon", "riscv64", "cortex-m4"])
def test_cpus_without_such_vectors_keep_their_loops(target, module_of):
    mod = module_of([(1, 6, 6, 16)], lambda b, x: b.emit(relax.op.nn.max_pool2d(x, layout="NHWC")))
    legal = relax.transform.LegalizeOps()(mod)
    tvm.ir.assert_structural_equal(vectorized(legal, target), legal)


POOLS = {
    "max": (relax.op.nn.max_pool2d, torch.nn.functional.max_pool2d),
    "average": (relax.op.nn.avg_pool2d, torch.nn.functional.avg_pool2d),
}


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from(sorted(POOLS)),
    st.tuples(st.integers(3, 9), st.integers(3, 9), st.integers(1, 40)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(0, 1),
)
def test_numbers_are_torchs(module_of, same, kind, size, window, padding):
    kernel, stride = window
    padding = min(padding, kernel // 2)
    ours, theirs = POOLS[kind]
    x = np.random.default_rng(0).standard_normal((2, *size)).astype("float32")
    x[0, 1, 1, 0] = -0.0
    options = dict(pool_size=(kernel, kernel), strides=(stride, stride), padding=[padding] * 4)
    if kind == "average":
        options["count_include_pad"] = True
    mod = module_of([x.shape], lambda b, v: b.emit(ours(v, layout="NHWC", **options)))
    expected = theirs(torch.from_numpy(x).permute(0, 3, 1, 2), kernel, stride, padding)
    expected = expected.permute(0, 2, 3, 1).contiguous().numpy()
    y = be.build(mod, threads=1)(x)
    if kind == "max":
        assert same(y, expected)
    else:
        np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)


def test_there_is_no_padded_copy(module_of):
    mod = module_of(
        [(1, 16, 16, 64)],
        lambda b, x: b.emit(
            relax.op.nn.max_pool2d(
                x, pool_size=(3, 3), strides=(2, 2), padding=(1, 1), layout="NHWC"
            )
        ),
    )
    target = load_target("x86-64-v4")
    with target.tvm_target:
        kernels = kernel_calls(target)(mod)
    (function,) = [f for _, f in kernels.functions_items() if isinstance(f, tirx.PrimFunc)]
    text = function.script(show_meta=False)
    assert "sblock_alloc_buffer" not in text and "T.vectorized(T.int64(16))" in text
