"""Tests of what runs in parallel though no rule scheduled it."""

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm import relax, te, tirx, topi

import tvm_bitenc as be
from tvm_bitenc.target import load_target
from tvm_bitenc.transform.parallelize import Parallelize


def loops(function: tirx.PrimFunc) -> list[tirx.For]:
    found = []
    tvm_ffi.structural_walk(function.body, (tirx.For, found.append))
    return found


def added(shape: tuple[int, ...]) -> tvm.IRModule:
    data = te.placeholder(shape, "float32")
    return tvm.IRModule({"main": te.create_prim_func([data, topi.add(data, 1.0)])})


def parallelized(mod: tvm.IRModule, threads: int | None) -> tirx.PrimFunc:
    return Parallelize(load_target("x86-64-v3", threads))(mod)["main"]


def test_large_block_runs_in_parallel_over_its_outer_loops():
    parallel = [
        int(loop.extent)
        for loop in loops(parallelized(added((1, 32, 32, 64)), None))
        if loop.kind == tirx.ForKind.PARALLEL
    ]
    assert parallel == [32 * 32]


@pytest.mark.parametrize("shape, threads", [((1, 8, 8, 8), None), ((1, 32, 32, 64), 1)])
def test_small_block_or_single_thread_changes_nothing(shape, threads):
    mod = added(shape)
    tvm.ir.assert_structural_equal(parallelized(mod, threads), mod["main"])


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
