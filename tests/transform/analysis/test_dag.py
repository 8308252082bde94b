"""Questions about a graph are asked once per variable, however deep and however often it forks."""

from functools import partial

import numpy as np
import pytest
import tvm
from tvm import relax

import tvm_bitenc as be
from tvm_bitenc.transform.analysis.dag import once_per_variable
from tvm_bitenc.transform.analysis.float32 import evaluate
from tvm_bitenc.transform.analysis.grid import bounds_of, levels_of
from tvm_bitenc.transform.analysis.steps import elementwise_step
from tvm_bitenc.transform.lower.operands import quantized_sources
from tvm_bitenc.transform.rewrite import rewrite_calls


def chain(length: int, op, start=None) -> tvm.IRModule:
    """``x = op(x)``, again and again; from a constant if there is one to start with."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 4), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            value = x if start is None else builder.emit(start)
            for _ in range(length):
                value = builder.emit(op(value))
            out = builder.emit_output(relax.op.add(x, value))
        builder.emit_func_output(out)
    return builder.get()


def ask(mod: tvm.IRModule, question) -> list:
    """Answers to a question about every call of a module."""
    answers = []
    rewrite_calls(mod, lambda call, graph: answers.append(question(call, graph)))
    return answers


def _of_one(question, var, call, graph):
    return question(call, graph) if graph.var.same_as(var) else None


def doubled(x):
    return relax.op.add(x, x)


@pytest.mark.parametrize("op", [relax.op.nn.relu, doubled], ids=["chain", "forks"])
def test_each_variable_is_asked_once(op):
    asked = []

    @once_per_variable()
    def depth(expr, graph):
        call = graph.definition(expr)
        if not isinstance(call, relax.Call):
            return 0
        if isinstance(expr, relax.Var):
            asked.append(expr)
        return 1 + max(depth(argument, graph) for argument in call.args)

    assert max(ask(chain(300, op), depth)) == 301
    assert len(asked) == len(set(asked)) == 300


@pytest.mark.sweep(2)
@pytest.mark.parametrize("op", [relax.op.nn.relu, doubled], ids=["chain", "forks"])
@pytest.mark.parametrize(
    "question", [evaluate, bounds_of, levels_of, elementwise_step, quantized_sources]
)
def test_the_last_of_many_ops_can_be_asked_about(question, op):
    """First of all about the last: no recursion, and no walk of every way."""
    zeros = np.zeros((1, 4), np.float32)
    for start in (None, relax.op.zeros((1, 4), "float32"), relax.const(zeros)):
        mod = chain(1500, op, start)
        last = mod["main"].body.blocks[0].bindings[-1].var
        ask(mod, partial(_of_one, question, last))


def test_values_of_deep_constants():
    mod = chain(
        1500,
        lambda x: relax.op.add(x, relax.const(1.0)),
        relax.op.nn.relu(relax.const(np.float32([[0, 0, 0, 0]]))),
    )
    values = [value for value in ask(mod, evaluate) if value is not None]
    assert values[-1].tolist() == [[1500.0] * 4]


def test_a_network_deeper_than_pythons_stack_compiles():
    mod = chain(1200, doubled, None)
    lib = be.build(mod, threads=1)
    x = np.float32([[0, 0, 0, 0]])
    assert np.array_equal(np.asarray(lib(x)), x)
