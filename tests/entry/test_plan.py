"""Plans: places, shared weights, and outputs that kernels write into."""

from itertools import combinations

import numpy as np
import pytest
from tvm import relax, tirx

import tvm_bitenc as be
from tvm_bitenc.entry.plan import Plan, Step, Tensor, make_plan
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.runtime.size import ALIGNMENT, NOTHING, Size
from tvm_bitenc.target import load_target
from tvm_bitenc.transform.pipeline import kernel_calls


def plan_of(mod) -> Plan:
    target = load_target("native", 1)
    with target.tvm_target:
        return make_plan(kernel_calls(target)(mod))


def test_one_kernel_writes_into_the_output(module_of):
    plan = plan_of(module_of([(2, 3)], lambda b, x: b.emit(relax.op.exp(x))))
    shape, nbytes = (Size(2), Size(3)), Size(24)
    x, y = (Tensor(f"{name}0", NOTHING, "float32", shape, nbytes) for name in ("input", "output"))
    assert (plan.inputs, plan.outputs) == ([x], [y])
    assert plan.steps == [Step("tir_exp", (x, y))]
    assert plan.arena == NOTHING and plan.weights == b""


def chain(b, x):
    for _ in range(4):
        x = b.emit(relax.op.cumsum(b.emit(relax.op.permute_dims(x)), axis=0))
    return x


def test_tensors_that_live_at_once_lie_apart(module_of):
    plan = plan_of(module_of([(32, 32)], chain))
    uses = [(i, t) for i, step in enumerate(plan.steps) for t in step.tensors if t.base == "arena"]
    spans = {t: [i for i, other in uses if other == t] for _, t in uses}
    for (one, steps), (other, others) in combinations(spans.items(), 2):
        apart = steps[-1] < others[0] or others[-1] < steps[0]
        first, second = sorted((one, other), key=lambda t: t.offset)
        assert apart or first.offset.fixed + first.nbytes.fixed <= second.offset.fixed
    assert 0 < plan.arena.fixed < 3 * 32 * 32 * 8  # Two at a time, in place of all eight.


def test_a_dynamic_batch_gives_places_that_grow_with_it():
    n = tirx.Var("n", "int64")
    builder, x = relax.BlockBuilder(), relax.Var("x", relax.TensorType([n, 8], "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit(relax.op.cumsum(x, axis=1))
            z = builder.emit_output(relax.op.cumsum(y, axis=1))
        builder.emit_func_output(z)
    plan = plan_of(builder.get())
    assert plan.arena == Size(0, ALIGNMENT)
    assert plan.outputs[0].shape == (Size(0, 1), Size(8)) and plan.outputs[0].nbytes == Size(0, 32)


def test_equal_weights_are_stored_once_and_aligned(module_of):
    value = np.arange(5, dtype=np.float32)

    def body(b, x, y):
        one, same, other = (relax.const(v) for v in (value, value.copy(), value + 1))
        added = b.emit(relax.op.add(x, one)), b.emit(relax.op.add(y, same))
        return [*added, b.emit(relax.op.multiply(x, other))]

    plan = plan_of(module_of([(5,), (5,)], body))
    weights = {t for step in plan.steps for t in step.tensors if t.base == "weights"}
    assert {t.offset for t in weights} == {NOTHING, Size(ALIGNMENT)}
    assert plan.weights == value.tobytes() + bytes(ALIGNMENT - 20) + (value + 1).tobytes()


def test_an_input_that_is_an_output_is_copied(module_of):
    plan = plan_of(module_of([(3,)], lambda b, x: [x, b.emit(relax.op.exp(x))]))
    (copy,) = [step for step in plan.steps if step.kernel is None]
    assert copy.tensors == (plan.inputs[0], plan.outputs[0])


def test_sizes_that_only_numbers_tell_are_refused(module_of):
    mod = module_of([(6,)], lambda b, x: b.emit(relax.op.nonzero(x)))
    with pytest.raises(UnsupportedError, match="needs TVM's runtime|isn't known before"):
        plan_of(mod)


def test_the_machine_runs_what_is_no_function(module_of):
    lib = be.build(module_of([(2, 5)], lambda b, x: b.emit(relax.op.sort(x))), threads=1)
    (note,) = lib.report().notes
    assert note.startswith("runs on TVM's virtual machine, for ") and "sort" in note
    x = np.array([[3, 1, 2, 5, 4], [0, -1, 7, 7, 2]], np.float32)
    assert np.array_equal(lib(x), np.sort(x))
