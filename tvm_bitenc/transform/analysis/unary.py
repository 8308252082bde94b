"""Reads an op of one variable and constants, such as ``x * c``, ``c - x`` or ``clip(x, a, b)``.

Everyone who looks through arithmetic reads it here. What ops need beyond their constants stands in
the two tables below.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from tvm import relax

from ..rewrite import Graph
from .float32 import evaluate, function_of, is_constant, op_name

# Ops that say nothing of levels and order unless the variable comes first: c / x has a pole.
FIRST_ONLY = frozenset({"relax.divide", "bitenc.multiply_add", "relax.clip", "relax.nn.prelu"})
# Ops whose constants don't broadcast as those of others do.
OWN_AXES = frozenset({"relax.nn.prelu"})


@dataclass(frozen=True)
class Unary:
    """An op as a function of one of its arguments.

    Parameters
    ----------
    call : relax.Call
    variable : int
        Which argument it is.
    constants : mapping of int to ndarray
        Values of the others.
    """

    call: relax.Call
    variable: int
    constants: Mapping[int, np.ndarray]

    @property
    def name(self) -> str:
        """Name of the op."""
        return op_name(self.call)

    @property
    def argument(self) -> relax.Expr:
        """The variable."""
        return self.call.args[self.variable]

    @property
    def constant(self) -> np.ndarray:
        """The only constant of an op of two arguments."""
        (value,) = self.constants.values()
        return value

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return what the op makes of an array, in the graph's own float32 arithmetic."""
        function = function_of(self.call)
        assert function is not None  # Or it wouldn't have been read.
        values = {**self.constants, self.variable: x}
        return function(*(values[i] for i in range(len(values))))


def unary_of(
    expr: relax.Expr, variable: int, graph: Graph, first_only: Collection[str] = FIRST_ONLY
) -> Unary | None:
    """Read an expression as a function of one argument; None if another isn't constant.

    Parameters
    ----------
    expr : relax.Expr
        No variable: see `Graph.definition`.
    variable : int
    graph : Graph
    first_only : collection of str
        Ops that aren't read as functions of any argument but the first.
    """
    name = op_name(expr)
    if not name or function_of(expr) is None or (name in first_only and variable != 0):
        return None
    others = {i: argument for i, argument in enumerate(expr.args) if i != variable}
    if not all(is_constant(argument, graph) for argument in others.values()):
        return None
    values = ((i, evaluate(other, graph)) for i, other in others.items())
    return Unary(expr, variable, {i: value for i, value in values if value is not None})


def unary(expr: relax.Expr, graph: Graph, first_only: Collection[str] = FIRST_ONLY) -> Unary | None:
    """Read an op of exactly one variable; None for all others."""
    if not op_name(expr):
        return None
    variables = [i for i, arg in enumerate(expr.args) if not is_constant(arg, graph)]
    return unary_of(expr, variables[0], graph, first_only) if len(variables) == 1 else None


def unaries(expr: relax.Expr, graph: Graph) -> Iterator[Unary]:
    """Read an op of at most one variable; of constants alone, each that is computed might be it."""
    if not op_name(expr):
        return
    variables = [i for i, arg in enumerate(expr.args) if not is_constant(arg, graph)]
    if not variables:
        definitions = map(graph.definition, expr.args)
        variables = [i for i, value in enumerate(definitions) if isinstance(value, relax.Call)]
    elif len(variables) > 1:
        return
    found = (unary_of(expr, variable, graph) for variable in variables)
    yield from (each for each in found if each is not None)
