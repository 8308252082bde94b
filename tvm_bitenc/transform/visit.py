"""Looking at every call of a module without changing it."""

from __future__ import annotations

from collections.abc import Callable

import tvm
from tvm import relax

from .rewrite import Graph, is_external

See = Callable[[relax.Call, Graph], None]


class _Bindings:
    """What variables are bound to, as `Graph` asks for it."""

    def __init__(self) -> None:
        self.bound: dict[relax.Var, relax.Expr] = {}
        self.builder_ = relax.BlockBuilder()

    def lookup_binding(self, var: relax.Var) -> relax.Expr | None:
        return self.bound.get(var)


def visit_calls(mod: tvm.IRModule, see: See) -> None:
    """Show every call of every Relax function, in order, its arguments before it.

    Functions for an external code generator are left out.

    Parameters
    ----------
    mod : tvm.IRModule
    see : callable (call, graph)
        Whatever it returns is ignored, and `Graph.emit` has no function to insert into.
    """
    for function in mod.functions.values():
        if isinstance(function, relax.Function) and not is_external(function):
            bindings = _Bindings()
            _visit(function.body, bindings, Graph(bindings), see)


def _visit(expr: relax.Expr, bindings: _Bindings, graph: Graph, see: See) -> None:
    if isinstance(expr, relax.SeqExpr):
        for block in expr.blocks:
            for binding in block.bindings:
                outer, graph.var = graph.var, binding.var
                _visit(binding.value, bindings, graph, see)
                graph.var = outer
                bindings.bound[binding.var] = binding.value
        _visit(expr.body, bindings, graph, see)
    elif isinstance(expr, relax.Call):
        for argument in expr.args:
            if isinstance(argument, (relax.Call, relax.Tuple)):
                _visit(argument, bindings, graph, see)
        see(expr, graph)
    elif isinstance(expr, relax.Tuple):
        for part in expr.fields:
            _visit(part, bindings, graph, see)
    elif isinstance(expr, relax.If):
        for branch in (expr.true_branch, expr.false_branch):
            _visit(branch, bindings, graph, see)
    elif isinstance(expr, relax.Function):
        _visit(expr.body, bindings, graph, see)
