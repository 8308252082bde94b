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
from ...op.quantize import encoding_of, quantize_op
from ...op.reached import reached_op
from ...op.registration import is_call_to
from ..rewrite import Graph
from .float32 import MONOTONE, evaluate, function_of, op_name
from .shaping import SHAPING

Function = Callable[[np.ndarray], np.ndarray]
ONLY_FIRST = ("relax.divide", "bitenc.multiply_add", "relax.clip", "relax.nn.prelu")
COMPARISONS = ("relax.greater", "relax.greater_equal")
MAX_DEPTH = 4  # Forks inside forks that are followed.


@dataclass(frozen=True)
class Step:
    """One elementwise function on the way from an integer tensor to an encoder.

    Parameters
    ----------
    function : callable
        From an array to one of the same shape.
    argument : relax.Expr
        Where its input comes from.
    is_rising : bool
        It is one function for all elements, and never falls.
    is_monotone : bool
        It is known never to turn, channel by channel.
    """

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
    while True:
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


def elementwise_step(expr: relax.Expr, graph: Graph, depth: int = 0) -> Step | None:
    """Read one op as a step, or a fork of ops up to where it joins, if it is one."""
    if op_name(expr) == "relax.astype":
        is_float = str(expr.attrs.dtype) == "float32"
        return Step(function_of(expr), expr.args[0], True) if is_float else None
    if is_call_to(expr, quantize_op):
        encoding = encoding_of(expr)
        if encoding.is_per_channel:
            return None
        return Step(lambda x: encoding.dequantize(encoding.quantize(x)), expr.args[0], True)
    function = function_of(expr) if op_name(expr) else None
    if function is None:
        return None
    values = [evaluate(argument, graph) for argument in expr.args]
    variables = [i for i, value in enumerate(values) if value is None]
    if len(variables) == 1:
        return _arithmetic_step(expr, function, values, variables[0])
    return _joined_step(expr, function, values, graph, depth) if variables else None


def _arithmetic_step(call: relax.Call, function, values: list, variable: int) -> Step | None:
    """Read an op of one variable and constants."""
    name, constants = op_name(call), [value for value in values if value is not None]
    if name in ONLY_FIRST and variable != 0:
        return None
    falls, turns = _falls(name, variable, constants), _turns(call, constants)

    def with_constants(x: np.ndarray) -> np.ndarray:
        return function(*(x if value is None else value for value in values))

    is_uniform = all(constant.size == 1 for constant in constants)
    is_rising = is_uniform and not falls and not turns
    return Step(with_constants, call.args[variable], is_rising, not turns)


def _falls(name: str, variable: int, constants: list[np.ndarray]) -> bool:
    """Whether an op may reverse the order of its variable."""
    if name in ("relax.multiply", "relax.divide", "bitenc.multiply_add"):
        return not np.all(constants[0] >= 0)
    return name == "relax.negative" or (name == "relax.subtract" and variable == 1)


def _turns(call: relax.Call, constants: list[np.ndarray]) -> bool:
    """Whether an op may rise here and fall there."""
    name = op_name(call)
    if name == "relax.nn.leakyrelu":
        return not call.attrs.alpha >= 0
    if name == "relax.nn.prelu":
        return not np.all(constants[0] >= 0)
    return name not in MONOTONE and not is_call_to(call, reached_op)


def _joined_step(call: relax.Call, function, values: list, graph: Graph, depth: int) -> Step | None:
    """Read an op whose variables all come from one tensor."""
    if depth >= MAX_DEPTH:
        return None
    variables = [i for i, value in enumerate(values) if value is None]
    paths = [_path(call.args[i], graph, depth) for i in variables]
    source = next((var for var in paths[0] if all(var in path for path in paths)), None)
    if source is None:
        return None

    def joined(x: np.ndarray) -> np.ndarray:
        arguments = list(values)
        for i, path in zip(variables, paths):
            arguments[i] = path[source](x)
        return function(*arguments)

    slope = _slope(call, source, graph)
    is_monotone = slope is not None and bool(np.all(slope >= 0))
    return Step(joined, source, is_monotone and slope.size == 1, is_monotone)


def _path(expr: relax.Expr, graph: Graph, depth: int) -> dict[relax.Var, Function]:
    """Tensors that an expression is an elementwise function of, nearest first, each with it."""
    found: dict[relax.Var, Function] = {}

    def function(x: np.ndarray) -> np.ndarray:
        return x

    while isinstance(expr, relax.Var):
        found[expr] = function
        step = elementwise_step(graph.definition(expr), graph, depth + 1)
        if step is None:
            break
        expr, function = step.argument, _composed(function, step.function)
    return found


def _composed(outer: Function, inner: Function) -> Function:
    return lambda x: outer(inner(x))


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
