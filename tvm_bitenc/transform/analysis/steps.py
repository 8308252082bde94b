"""Reading the graph backwards: the function between an integer tensor and an encoder.

A function is a chain of *steps*, each from one tensor to one of the same shape. Where arithmetic
forks and joins again, as in ``x * clip(x + 3, 0, 6)``, all between fork and join is one step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import relax

from ...op.branch import branch_conv2d_op, branch_dense_op
from ...op.quantize import quantize_op
from ...op.reached import reached_op
from ...op.registration import is_call_to
from ..rewrite import Graph
from .float32 import MONOTONE, evaluate, is_constant, op_name
from .forks import function_between, reading_of, source_of
from .shaping import SHAPING
from .unary import Unary, unary

Function = Callable[[np.ndarray], np.ndarray]
COMPARISONS = ("relax.greater", "relax.greater_equal")
MAX_STEPS = 256  # That are followed; what has more stays float arithmetic.


@dataclass(frozen=True)
class Step:
    """One elementwise function on the way from an integer tensor to an encoder.

    Parameters
    ----------
    call : relax.Call
        The op, or the one where a fork joins again.
    function : callable
        From an array to one of the same shape; a `Unary` where it is one op of constants.
    argument : relax.Expr
        Where its input comes from.
    is_rising : bool
        It is one function for all elements, and never falls.
    is_monotone : bool
        It is known never to turn, channel by channel.
    """

    call: relax.Call
    function: Function
    argument: relax.Expr
    is_rising: bool
    is_monotone: bool = True


@dataclass(frozen=True)
class Chain:
    """What lies between an accumulator and an encoder.

    Parameters
    ----------
    accumulator : relax.Call
        The branch op.
    accumulator_var : relax.Expr
    shaping : list of relax.Call
        Pooling and reshaping, in the order they happen.
    steps : list of Step
        In the order they happen.
    """

    accumulator: relax.Call
    accumulator_var: relax.Expr
    shaping: list[relax.Call]
    steps: list[Step]


def trace(expr: relax.Expr, graph: Graph) -> Chain | None:
    """Walk from an encoder's input back to an accumulator; None if anything else is met."""
    shaping: list[relax.Call] = []
    steps: list[Step] = []
    while len(steps) + len(shaping) <= MAX_STEPS:
        var, expr = expr, graph.definition(expr)
        if is_call_to(expr, branch_conv2d_op) or is_call_to(expr, branch_dense_op):
            return Chain(expr, var, shaping[::-1], steps[::-1])
        if op_name(expr) in SHAPING:
            # Steps met so far come after the shaping: they must hold for every element alike.
            if not all(step.is_rising for step in steps):
                return None
            shaping.append(expr)
            expr = expr.args[0]
            continue
        step = elementwise_step(expr, graph)
        if step is None:
            return None
        steps.append(step)
        expr = step.argument
    return None


def elementwise_step(expr: relax.Expr, graph: Graph) -> Step | None:
    """Read one op as a step, or a fork of ops up to where it joins, if it is one."""
    source = source_of(expr, graph)
    if source is None:
        return None
    if is_call_to(expr, quantize_op) or op_name(expr) == "relax.astype":
        function = reading_of(expr)
        return None if function is None else Step(expr, function, source, True)
    if sum(not is_constant(argument, graph) for argument in expr.args) == 1:
        found = unary(expr, graph)
        return None if found is None else _arithmetic_step(found)
    slope = _slope(expr, source, graph)
    is_monotone = slope is not None and bool(np.all(slope >= 0))
    is_rising = is_monotone and slope is not None and slope.size == 1
    return Step(expr, function_between(expr, source, graph), source, is_rising, is_monotone)


def _arithmetic_step(op: Unary) -> Step:
    """Say of an op of one variable and constants how it keeps order."""
    constants = [op.constants[i] for i in sorted(op.constants)]
    turns = _turns(op.call, constants)
    is_uniform = all(constant.size == 1 for constant in constants)
    is_rising = is_uniform and not _falls(op, constants) and not turns
    return Step(op.call, op, op.argument, is_rising, not turns)


def _falls(op: Unary, constants: list[np.ndarray]) -> bool:
    """Whether an op may reverse the order of its variable."""
    if op.name in ("relax.multiply", "relax.divide", "bitenc.multiply_add"):
        return not np.all(constants[0] >= 0)
    return op.name == "relax.negative" or (op.name == "relax.subtract" and op.variable == 1)


def _turns(call: relax.Call, constants: list[np.ndarray]) -> bool:
    """Whether an op may rise here and fall there."""
    name = op_name(call)
    if name == "relax.nn.leakyrelu":
        return not call.attrs.alpha >= 0
    if name == "relax.nn.prelu":
        return not np.all(constants[0] >= 0)
    return name not in MONOTONE and not is_call_to(call, reached_op)


def _slope(call: relax.Call, source: relax.Var, graph: Graph) -> np.ndarray | None:
    """Slope of a PReLU spelt ``where(x > 0, x, x * slope)``, else None."""
    if op_name(call) != "relax.where" or not call.args[1].same_as(source):
        return None
    condition, other = graph.definition(call.args[0]), graph.definition(call.args[2])
    if op_name(condition) not in COMPARISONS or op_name(other) != "relax.multiply":
        return None
    limit = evaluate(condition.args[1], graph)
    if not condition.args[0].same_as(source) or limit is None or np.any(limit != 0):
        return None
    slopes = [evaluate(argument, graph) for argument in other.args]
    slope = next((value for value in slopes if value is not None), None)
    return slope if any(argument.same_as(source) for argument in other.args) else None
