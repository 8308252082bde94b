"""Sums of rows are made of parts, in the same order with vectors and without."""

import numpy as np
import pytest
import tvm
from tvm import relax, te, topi

from tvm_bitenc.target import load_target
from tvm_bitenc.transform.partial_sums import PARTS, PartialSums

TARGETS = ("x86-64-v3", "cortex-m3")


def module_of(compute, *shapes, dtype="float32"):
    tensors = [te.placeholder(shape, dtype, name=f"x{i}") for i, shape in enumerate(shapes)]
    return tvm.IRModule({"main": te.create_prim_func([*tensors, compute(*tensors)])})


def split(mod, target="x86-64-v3"):
    return PartialSums(load_target(target))(mod)


def in_parts(rows, parts):
    """The order in which floats are added."""
    total = np.zeros((len(rows), parts), np.float32)
    for start in range(0, rows.shape[1], parts):
        total += rows[:, start : start + parts]
    result = np.zeros(len(rows), np.float32)
    for lane in range(parts):
        result += total[:, lane]
    return result


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("length, parts", [(384, PARTS), (40, 10), (12, 6)])
def test_order_of_addition(length, parts, target):
    mod = split(module_of(lambda x: topi.sum(x, -1), (5, length)), target)
    assert ("T.vectorized" in str(mod)) == (target == "x86-64-v3")
    rows = np.random.default_rng(0).normal(size=(5, length)).astype(np.float32)
    found = tvm.runtime.tensor(np.zeros(5, np.float32))
    tvm.compile(mod, "llvm")["main"](tvm.runtime.tensor(rows), found)
    assert np.array_equal(found.numpy(), in_parts(rows, parts))


def test_largest_elements_and_sums_of_products():
    largest = module_of(lambda x: topi.max(x, -1), (3, 32))
    squares = module_of(lambda x: topi.sum(x * x, -1), (3, 32))
    assert all("T.vectorized" in str(split(mod)) for mod in (largest, squares))


def axis_first(x):
    return topi.sum(x, 0)


@pytest.mark.parametrize(
    "mod",
    [
        module_of(axis_first, (32, 5)),
        module_of(lambda x: topi.sum(x, -1), (5, 13)),
        module_of(lambda x: topi.sum(x, -1), (5, 32), dtype="int32"),
        module_of(lambda x: topi.nn.relu(x), (5, 32)),
        module_of(lambda x: topi.sum(x), (32,)),
    ],
    ids=["columns", "13 has no divisor", "integers", "no sum", "one sum in all"],
)
def test_others_stay(mod):
    tvm.ir.assert_structural_equal(split(mod), mod)


def test_what_a_rule_scheduled_stays():
    mod = module_of(lambda x: topi.sum(x, -1), (5, 32))
    scheduled = tvm.IRModule({"main": mod["main"].with_attr("tirx.is_scheduled", True)})
    tvm.ir.assert_structural_equal(split(scheduled), scheduled)


def test_a_dynamic_batch(outputs_of):
    builder = relax.BlockBuilder()
    batch = tvm.tirx.Var("n", "int64")
    x = relax.Var("x", relax.TensorType((batch, 64), "float32"))
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit(relax.op.sum(x, -1)))
    rows = np.random.default_rng(0).normal(size=(7, 64)).astype(np.float32)
    (found,) = outputs_of(builder.get(), [rows])
    assert np.array_equal(found, in_parts(rows, PARTS))
