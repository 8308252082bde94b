"""Where arithmetic that forked joins again: the tensor that an op alone is computed from.

In ``y = add(multiply(x, c), relu(x))`` the *source* of y is x: all ways back from y meet there, and
nothing else is read but constants. It is found as the dominators of a graph are, from the sources
of what y reads, so no way is walked twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import relax

from ...op.quantize import encoding_of, quantize_op
from ...op.registration import is_call_to
from ..rewrite import Graph
from .dag import in_order, once_per_variable
from .float32 import evaluate, function_of, is_constant, op_name

Function = Callable[..., np.ndarray]
MAX_OPS = 256  # Between an op and its source.


@dataclass(frozen=True)
class _Source:
    """Source of an expression.

    Parameters
    ----------
    var : relax.Expr or None
        None where an expression is no elementwise function of one tensor.
    depth : int
        How many sources lie one behind the other.
    ops : int
        How many ops there are up to it, those on two ways counted twice.
    """

    var: relax.Expr | None = None
    depth: int = 0
    ops: int = 0


def source_of(expr: relax.Expr, graph: Graph) -> relax.Expr | None:
    """Nearest tensor that an expression is an elementwise function of, beside constants."""
    return _source(expr, graph).var


@once_per_variable()
def _source(expr: relax.Expr, graph: Graph) -> _Source:
    call = graph.definition(expr)
    if reading_of(call) is None:
        return _Source()
    variables = [arg for arg in call.args if not is_constant(arg, graph)]
    if not variables:
        return _Source()
    var, ops = variables[0], 1
    for other in variables[1:]:
        var, between = _meeting(var, other, graph)
        ops += between
        if var is None or ops > MAX_OPS:
            return _Source()
    return _Source(var, _source(var, graph).depth + 1, ops)


def _meeting(a: relax.Expr, b: relax.Expr, graph: Graph) -> tuple[relax.Expr | None, int]:
    """Nearest source of two expressions, and how many ops lie before it."""
    ops = 0
    while not a.same_as(b):
        if _source(a, graph).depth < _source(b, graph).depth:
            a, b = b, a
        found = _source(a, graph)
        a, ops = found.var, ops + found.ops
        if a is None or ops > MAX_OPS:
            return None, ops
    return a, ops


def reading_of(call: relax.Expr) -> Function | None:
    """Return the function from a call's arguments to its result; None if it isn't elementwise."""
    if is_call_to(call, quantize_op):
        encoding = encoding_of(call)
        if encoding.is_per_channel:
            return None
        return lambda x, *_: encoding.dequantize(encoding.quantize(x))
    if op_name(call) == "relax.astype" and not _is_exact_cast(call):
        return None
    return function_of(call) if op_name(call) else None


def _is_exact_cast(call: relax.Call) -> bool:
    """Whether a cast is to float32, or of truth values, which any type holds."""
    return str(call.attrs.dtype) == "float32" or str(call.args[0].ty.dtype) == "bool"


def function_between(call: relax.Call, source: relax.Expr, graph: Graph) -> Function:
    """Return the function from a source's values to those of a call."""

    def operands(expr: relax.Expr, graph: Graph) -> list[relax.Expr]:
        if expr.same_as(source):
            return []
        arguments = graph.definition(expr).args
        return [arg for arg in arguments if not is_constant(arg, graph)]

    def function(x: np.ndarray) -> np.ndarray:
        values = {source: x}

        def value_of(expr: relax.Expr) -> np.ndarray:
            value = values[expr] if expr in values else evaluate(expr, graph)
            assert value is not None  # Or `source` weren't its source.
            return value

        def applied(call: relax.Call) -> np.ndarray:
            function = reading_of(call)
            assert function is not None
            return function(*map(value_of, call.args))

        for var in in_order(call, graph, operands, values):
            values[var] = applied(graph.definition(var))
        return applied(call)

    return function
