"""Questions about expressions, answered once for each variable and without recursion.

A graph is no tree: a variable that is read twice would be asked twice, and what is behind it four
times, and so on. And a deep graph would end in Python's `RecursionError`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar, overload

from tvm import relax

from ..rewrite import Graph

Answer = TypeVar("Answer")
Question = Callable[[relax.Expr, Graph], Answer]
Operands = Callable[[relax.Expr, Graph], Sequence[relax.Expr]]


def operands_of(expr: relax.Expr, graph: Graph) -> Sequence[relax.Expr]:
    """Arguments of the call, or fields of the tuple, that an expression stands for."""
    definition = graph.definition(expr)
    if isinstance(definition, relax.Call):
        return definition.args
    return definition.fields if isinstance(definition, relax.Tuple) else ()


@overload
def once_per_variable(
    operands: Operands = ...,
) -> Callable[[Question[Answer]], Question[Answer]]: ...
@overload
def once_per_variable(
    operands: Operands = ..., *, keep: Callable[[Answer], bool]
) -> Callable[[Question[Answer]], Question[Answer]]: ...
def once_per_variable(
    operands: Operands = operands_of, *, keep: Callable[[Answer], bool] = lambda _answer: True
) -> Callable[[Question[Answer]], Question[Answer]]:
    """Let a recursive function of ``(expr, graph)`` be asked once about each variable of a graph.

    Parameters
    ----------
    operands : callable
        The expressions that the function asks itself about. They are asked before it is.
    keep : callable
        Tells which answers are small enough to be kept when the question is answered.
    """

    def decorate(function: Question[Answer]) -> Question[Answer]:
        @functools.wraps(function)
        def asked(expr: relax.Expr, graph: Graph) -> Answer:
            answers = graph.answers.setdefault(function, {})
            if expr in answers:
                return answers[expr]
            fresh = []
            for var in in_order(expr, graph, operands, answers):
                answers[var] = function(var, graph)
                fresh.append(var)
            answer = answers[expr] if expr in answers else function(expr, graph)
            for var in fresh:
                if not keep(answers[var]):
                    del answers[var]
            return answer

        return asked

    return decorate


def in_order(
    expr: relax.Expr, graph: Graph, operands: Operands, answers: Mapping[relax.Expr, object]
) -> Iterator[relax.Var]:
    """Variables that an expression is made of and that have no answer yet, operands first.

    Whoever iterates adds the answer of each to `answers`.
    """
    opened: set[relax.Var] = set()
    waiting = [expr] if isinstance(expr, relax.Var) else [*operands(expr, graph)][::-1]
    while waiting:
        var = waiting[-1]
        if not isinstance(var, relax.Var) or var in answers:
            waiting.pop()
        elif var in opened:
            yield waiting.pop()
        else:
            opened.add(var)
            waiting.extend([*operands(var, graph)][::-1])
