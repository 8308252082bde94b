"""The time to compile grows about as the number of nodes does. Slow: it compiles large graphs."""

import time

import numpy as np
import pytest
import tvm
from tvm import relax

import tvm_bitenc as be

SHAPE = (1, 4, 2, 2)


def network(nodes: int, kind: str) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(SHAPE, "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            value = x
            for i in range(nodes):
                value = builder.emit(_node(kind, value, i))
            out = builder.emit_output(relax.op.nn.relu(value))
        builder.emit_func_output(out)
    return builder.get()


def _node(kind: str, value: relax.Expr, number: int) -> relax.Call:
    if kind == "relu":
        return relax.op.nn.relu(value)
    if kind == "double":
        return relax.op.add(value, value)
    constant = relax.const(np.float32(0.5 + number % 7))
    return (relax.op.add, relax.op.multiply, relax.op.maximum)[number % 3](value, constant)


def seconds(nodes: int, kind: str) -> float:
    mod, start = network(nodes, kind), time.process_time()
    be.build(mod, threads=1)(np.zeros(SHAPE, np.float32))
    return time.process_time() - start


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["relu", "double", "mixed"])
def test_twice_the_nodes_take_about_twice_the_time(kind):
    seconds(50, kind)  # What is done once in a process.
    assert seconds(800, kind) < 3.5 * seconds(400, kind) + 0.5
