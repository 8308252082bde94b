"""Plans: offsets, shared weights, and outputs that kernels write into."""

from itertools import pairwise

import numpy as np
import pytest
from tvm import relax, tirx

import tvm_bitenc as be
from tvm_bitenc.deploy.bundle.plan import ALIGNMENT, Plan, Step, Tensor, make_plan
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.transform.pipeline import memory_planning


def plan_of(mod) -> Plan:
    model = be.build(mod, threads=1)
    with model.target.tvm_target:
        return make_plan(memory_planning(model.target)(model.scheduled))


def test_one_kernel_writes_into_the_output(module_of):
    plan = plan_of(module_of([(2, 3)], lambda b, x: b.emit(relax.op.exp(x))))
    tensors = [Tensor("input0", 0, "float32", (2, 3)), Tensor("output0", 0, "float32", (2, 3))]
    assert plan.tensors == tensors and plan.steps == [Step("tir_exp", (0, 1))]
    assert (plan.inputs, plan.outputs) == (tensors[:1], tensors[1:])
    assert plan.arena_bytes == 0 and plan.weights == b""


def test_tensors_that_live_at_once_lie_apart(module_of):
    def body(b, x):
        total = b.emit(relax.op.sum(x, axis=1, keepdims=True))
        most = b.emit(relax.op.max(x, axis=1, keepdims=True))
        return b.emit(relax.op.matmul(total, b.emit(relax.op.permute_dims(most))))

    plan = plan_of(module_of([(5, 7)], body))
    spans = sorted({(t.offset, t.offset + t.nbytes) for t in plan.tensors if t.base == "arena"})
    assert len(spans) >= 2 and all(start % ALIGNMENT == 0 for start, _ in spans)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert spans[-1][1] <= plan.arena_bytes


def test_equal_weights_are_stored_once_and_aligned(module_of):
    value = np.arange(5, dtype=np.float32)

    def body(b, x, y):
        one, same, other = (relax.const(v) for v in (value, value.copy(), value + 1))
        added = b.emit(relax.op.add(x, one)), b.emit(relax.op.add(y, same))
        return [*added, b.emit(relax.op.multiply(x, other))]

    plan = plan_of(module_of([(5,), (5,)], body))
    weights = {t for t in plan.tensors if t.base == "weights"}
    assert {t.offset for t in weights} == {0, ALIGNMENT}
    assert plan.weights == value.tobytes() + bytes(ALIGNMENT - 20) + (value + 1).tobytes()


def test_an_input_that_is_an_output_is_copied(module_of):
    plan = plan_of(module_of([(3,)], lambda b, x: [x, b.emit(relax.op.exp(x))]))
    (copy,) = [step for step in plan.steps if step.kernel is None]
    source, target = (plan.tensors[i] for i in copy.tensors)
    assert (source, target) == (plan.inputs[0], plan.outputs[0])


def test_sizes_known_only_at_run_time_are_refused():
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([tirx.Var("n", "int64")], "float32"))
    with builder.function("main", [x]):
        builder.emit_func_output(x)
    with pytest.raises(UnsupportedError, match="input 'x': has a size that is known only at run"):
        make_plan(builder.get())
