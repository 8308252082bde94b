"""The one graph rewriter that every pass uses: a rule is asked about each call, in order.

How to write a pass
-------------------
A pass is a file here and a line in `pipeline.py`. It takes a module and returns one that gives the
same numbers to the bit. What it may decide by is a field::

    @tvm.transform.module_pass(opt_level=0, name="bitenc.DropDoubleNegation")
    @dataclass(frozen=True)
    class DropDoubleNegation:
        target: Target

        def transform_module(self, mod, _ctx):
            return rewrite_calls(mod, _drop)

    def _drop(call, graph):
        if op_name(call) != "relax.negative":
            return None
        inner = graph.definition(call.args[0])
        return inner.args[0] if op_name(inner) == "relax.negative" else None

The rule's contract:

- It is asked about every call, in the order in which they run. The arguments that it sees are
  rewritten already.
- None keeps the call. Any other expression takes its place, and has the same type.
- Arguments are variables: `Graph.definition` says what one stands for. New calls that are more than
  the result go through `Graph.emit`; `Graph.typed` only infers a type.
- What nothing reads any more is dropped behind the pass, so a rule removes nothing itself.
- It never guesses. A case that isn't proven keeps its call; one that can't be compiled at all
  raises `UnsupportedError` with the layer, the cause and the cure.
- What it decides becomes an attribute of the call (`with_attributes`); no later pass works it out
  again.

To look without changing, use `visit.visit_calls`. What several passes ask of the graph is in
`analysis/`: `analysis.unary` reads arithmetic with constants, `analysis.float32` evaluates it,
`analysis.shaping` knows what only moves elements. Recursive questions go through
`analysis.dag.once_per_variable`, as graphs are deep and no trees.

Before and after stand at the head of the pass's file, as in all files here. Its test, in
`tests/transform/`, has such a pair as TVMScript (`op` shows how) and compares them with
`assert_same_ir`, runs both and compares every number, and shows what the pass leaves alone.
``bitenc compile --dump DIR`` writes the module after every pass, and
`tests/transform/test_pipeline.py` runs a network cut off behind each of them.
"""

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
