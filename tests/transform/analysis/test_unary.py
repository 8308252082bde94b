"""Ops of one variable and constants, read once for all passes."""

import numpy as np
import pytest
from tvm import relax

from tvm_bitenc.transform.analysis.unary import unaries, unary, unary_of
from tvm_bitenc.transform.visit import visit_calls

op = relax.op
C = np.array([2.0, -3.0], np.float32)


def last(module_of, body):
    """The last call of a function of x (2, 2), and its graph."""
    found = []
    visit_calls(
        module_of([(2, 2)], lambda b, x: b.emit(body(b, x))), lambda c, g: found.append((c, g))
    )
    return found[-1]


def constant(value=C):
    return relax.const(value, "float32")


READ = {
    "x * c": (lambda b, x: op.multiply(x, constant()), 0, lambda x: x * C),
    "c * x": (lambda b, x: op.multiply(constant(), x), 1, lambda x: C * x),
    "c - x": (lambda b, x: op.subtract(constant(), x), 1, lambda x: C - x),
    "x / c": (lambda b, x: op.divide(x, constant()), 0, lambda x: x / C),
    "clip": (lambda b, x: op.clip(x, -1, 0.5), 0, lambda x: np.clip(x, -1, 0.5)),
    "computed": (lambda b, x: op.add(x, b.emit(op.negative(constant()))), 0, lambda x: x - C),
}


@pytest.mark.parametrize("name", READ)
def test_read(name, module_of):
    body, variable, function = READ[name]
    found = unary(*last(module_of, body))
    assert found.variable == variable
    x = np.random.default_rng(0).standard_normal((2, 2)).astype(np.float32)
    np.testing.assert_array_equal(found(x), function(x).astype(np.float32))


REFUSED = {
    "two variables": lambda b, x: op.add(x, x),
    "a pole": lambda b, x: op.divide(constant(), x),
    "not exact": lambda b, x: op.sigmoid(x),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, module_of):
    call, graph = last(module_of, REFUSED[name])
    assert unary(call, graph) is None


def test_a_pole_is_read_by_whoever_only_moves_it(module_of):
    call, graph = last(module_of, REFUSED["a pole"])
    assert unary(call, graph, first_only=()).variable == 1


def test_of_constants_alone_what_is_computed_might_be_the_variable(module_of):
    """Weights are constants: their rounding is read all the same."""
    call, graph = last(
        module_of, lambda b, x: op.multiply(b.emit(op.round(constant())), constant())
    )
    assert unary(call, graph) is None
    (found,) = unaries(call, graph)
    assert found.variable == 0 and unary_of(call, 1, graph).constants.keys() == {0}
