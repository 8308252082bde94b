"""The one graph rewriter that every pass uses: a rule is asked about each call, in order."""

from __future__ import annotations

import re
from collections.abc import Callable

import tvm
from tvm import relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator


class Graph:
    """What a rewrite rule may ask of the function being rewritten, and do to it."""

    def __init__(self, rewriter: PyExprMutator):
        self._rewriter = rewriter
        self.var: relax.Var | None = None
        self.answers: dict[Callable, dict] = {}  # To questions of `dag.once_per_variable`.

    @property
    def name(self) -> str:
        """Name of the variable that the call at hand is bound to, empty if it has none of its own.

        Front ends name the result of a layer after the layer.
        """
        name = "" if self.var is None else str(self.var.name)
        return "" if re.fullmatch(r"((lv|gv)\d*)?", name) else name

    def definition(self, expr: relax.Expr) -> relax.Expr:
        """Return the expression that a variable stands for; other expressions unchanged."""
        while isinstance(expr, relax.Var):
            bound = self._rewriter.lookup_binding(expr)
            if bound is None:
                return expr
            expr = bound
        return expr

    def emit(self, expr: relax.Expr) -> relax.Var:
        """Insert an expression before the call at hand; its type is inferred and checked."""
        return self._rewriter.builder_.emit(expr)

    def typed(self, expr: relax.Expr) -> relax.Expr:
        """Infer the type of an expression without inserting it."""
        return self._rewriter.builder_.normalize(expr)

    def call_kernel(
        self, function: tirx.PrimFunc, inputs: list[relax.Expr], ty: relax.TensorType, name: str
    ) -> relax.Call:
        """Add a TIR function to the module and return a call to it."""
        global_var = self._rewriter.builder_.add_func(function, name)
        return relax.call_tir(global_var, inputs, out_ty=ty)


Rule = Callable[[relax.Call, Graph], "relax.Expr | None"]


@mutator
class _CallRewriter(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, rule: Rule):
        super().__init__(mod)
        self.rule = rule
        self.graph = Graph(self)

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        outer, self.graph.var = self.graph.var, binding.var
        super().visit_var_binding_(binding)
        self.graph.var = outer

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        replacement = self.rule(call, self.graph)
        return call if replacement is None else replacement


def rewrite_calls(mod: tvm.IRModule, rule: Rule) -> tvm.IRModule:
    """Apply a rule to every call of every Relax function, then drop what became unused.

    Functions for an external code generator are left as they are.

    Parameters
    ----------
    mod : tvm.IRModule
    rule : callable (call, graph) -> expression or None
        The call's arguments are rewritten already; None keeps the call.
    """
    rewriter = _CallRewriter(mod, rule)
    for global_var, function in list(mod.functions_items()):
        if isinstance(function, relax.Function) and not is_external(function):
            rewriter.builder_.update_func(global_var, rewriter.visit_expr(function))
    return relax.transform.DeadCodeElimination()(rewriter.builder_.finalize())


def is_external(function: relax.Function) -> bool:
    """Whether an external code generator compiles a function."""
    return bool(function.attrs) and "Codegen" in function.attrs


def merge_equal(mod: tvm.IRModule) -> tvm.IRModule:
    """Compute equal expressions once, and leave no other name of the result behind.

    Passes that ask who reads a variable would take such a name for a reader.
    """
    tidy = tvm.transform.Sequential(
        [
            relax.transform.EliminateCommonSubexpr(),
            relax.transform.CanonicalizeBindings(),
            relax.transform.DeadCodeElimination(),
        ]
    )
    return tidy(mod)
