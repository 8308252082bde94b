"""Tests of what runs in parallel though no rule scheduled it."""

import numpy as np
import pytest
import tvm
from tvm import relax, te, topi
from tvm.script import ir as I
from tvm.script import tirx as T

import tvm_bitenc as be
from tvm_bitenc.target import load_target
from tvm_bitenc.transform.parallelize import Parallelize
from tvm_bitenc.transform.pipeline import kernel_calls


def added(shape: tuple[int, ...]) -> tvm.IRModule:
    data = te.placeholder(shape, "float32")
    return tvm.IRModule({"main": te.create_prim_func([data, topi.add(data, 1.0)])})


def parallelized(mod: tvm.IRModule, threads: int | None) -> tvm.IRModule:
    return Parallelize(load_target("x86-64-v3", threads))(mod)


def test_golden():
    @I.ir_module
    class Before:
        @T.prim_func(s_tir=True)
        def main(x: T.Buffer((1, 32, 32, 64), "float32"), y: T.Buffer((1, 32, 32, 64), "float32")):
            for n, h, w, c in T.grid(1, 32, 32, 64):
                with T.sblock("add"):
                    vn, vh, vw, vc = T.axis.remap("SSSS", [n, h, w, c])
                    y[vn, vh, vw, vc] = x[vn, vh, vw, vc] + T.float32(1)

    @I.ir_module
    class After:
        @T.prim_func(s_tir=True)
        def main(x: T.Buffer((1, 32, 32, 64), "float32"), y: T.Buffer((1, 32, 32, 64), "float32")):
            for n_h_fused in T.parallel(32):
                for w, c in T.grid(32, 64):
                    with T.sblock("add"):
                        vn = T.axis.spatial(1, 0)
                        vh, vw, vc = T.axis.remap("SSS", [n_h_fused, w, c])
                        y[vn, vh, vw, vc] = x[vn, vh, vw, vc] + T.float32(1)

    mod = Before.clone()
    tvm.ir.assert_structural_equal(parallelized(mod, None), After)
    tvm.ir.assert_structural_equal(mod, Before)


@pytest.mark.parametrize("shape, threads", [((1, 8, 8, 8), None), ((1, 32, 32, 64), 1)])
def test_small_block_or_single_thread_changes_nothing(shape, threads):
    mod = added(shape)
    tvm.ir.assert_structural_equal(parallelized(mod, threads), added(shape))


def test_function_that_calls_the_runtime_is_left_alone():
    values = np.random.default_rng(0).standard_normal((4, 100)).astype("float32")
    builder = relax.BlockBuilder()
    data = relax.Var("data", relax.TensorType((4, 100), "float32"))
    with builder.function("main", [data]):
        with builder.dataflow():
            result = builder.emit_output(builder.emit(relax.op.sort(data, axis=1)))
        builder.emit_func_output(result)
    library = be.build(builder.get(), target="native")
    np.testing.assert_array_equal(library(values), np.sort(values, axis=1))


@pytest.mark.parametrize("threads", [1, 2])
def test_one_thread_has_no_parallel_loops_of_others(threads, module_of):
    """TVM's kernel of a sum along an axis has one of its own."""
    mod = module_of([(2, 8)], lambda b, x: b.emit(relax.op.cumsum(x, axis=1)))
    target = load_target("native", threads)
    with target.tvm_target:
        text = kernel_calls(target)(mod).script(show_meta=False)
    assert "cumsum" in text and ("T.parallel" in text) == (threads > 1)
