"""Constants are computed while compiling, but never by a kernel that is scheduled for the target.

Before::

    a = R.call_tir(cls.add, (one, one), out_ty)
    b = R.call_tir(cls.packed_encode, (one,), out_ty)   # tirx.is_scheduled

After::

    a = two
    b = R.call_tir(cls.packed_encode, (one,), out_ty)

What runs here is compiled for LLVM's plain CPU, whatever the target. A scheduled kernel calls
instructions of the target by name, and LLVM ends the process where it meets one that the plain CPU
lacks. So those kernels are left alone, and run with the model.

`relax.transform.FoldConstant` compiles each call by itself, which takes a network of float weights
half a minute: ten calls a layer. Here all are one program. What is no kernel's call is left to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import tvm
from tvm import relax, tirx, topi
from tvm.relax.expr_functor import PyExprMutator, mutator

from ..op.registration import is_call_to
from .rewrite import Graph, rewrite_calls
from .visit import visit_calls


@tvm.transform.module_pass(opt_level=0, name="bitenc.FoldConstants")
class FoldConstants:
    """Fold calls whose arguments are constants, unless they are calls of scheduled kernels."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        mod = _with_values(mod)
        functions = dict(mod.functions_items())
        scheduled = {var: f for var, f in functions.items() if is_scheduled(f)}
        others = {var: f for var, f in functions.items() if var not in scheduled}
        folded = relax.transform.FoldConstant()(tvm.IRModule(others, attrs=mod.attrs))
        for global_var, function in scheduled.items():
            folded[global_var] = function
        return _EmptyConstants(folded).module() if any(_empty_constants(folded)) else folded


def is_scheduled(function: tvm.ir.BaseFunc) -> bool:
    """Whether a function is a kernel of a schedule rule."""
    if not isinstance(function, tirx.PrimFunc) or not function.attrs:
        return False
    return bool(function.attrs.get("tirx.is_scheduled", False))


def _with_values(mod: tvm.IRModule) -> tvm.IRModule:
    """Put values in place of calls of kernels with constants, or with what such calls return."""
    calls = _constant_calls(mod)
    if not calls:
        return mod
    values = _values(calls, mod)

    def value_of(_call: relax.Call, graph: Graph) -> relax.Expr | None:
        return values.get(graph.var)

    return rewrite_calls(mod, value_of)


@dataclass(frozen=True)
class _ConstantCall:
    """A kernel's call: for each argument a constant, or the variable of the call that gives it."""

    kernel: tvm.ir.GlobalVar
    arguments: tuple[relax.Expr, ...]
    ty: relax.TensorType


def _constant_calls(mod: tvm.IRModule) -> dict[relax.Var, _ConstantCall]:
    """Calls that depend on constants alone, by the variables that they are bound to, in order."""
    found: dict[relax.Var, _ConstantCall] = {}
    bound: dict[relax.Expr, relax.Var] = {}  # The variables again, by the calls.

    def note(call: relax.Call, graph: Graph) -> None:
        if graph.var is None or not _may_run(call, mod):
            return
        definitions = [graph.definition(field) for field in call.args[1].fields]
        if all(d in bound or isinstance(d, tvm.ir.GenericConst) for d in definitions):
            arguments = tuple(bound.get(d, d) for d in definitions)
            found[graph.var] = _ConstantCall(call.args[0], arguments, call.ty)
            bound[call] = graph.var

    visit_calls(mod, note)
    return found


def _may_run(call: relax.Call, mod: tvm.IRModule) -> bool:
    """Whether a kernel of known shapes is called that runs on any CPU."""
    if not is_call_to(call, "relax.call_tir") or len(call.args) != 2 or not call.args[1].fields:
        return False
    if not isinstance(call.ty, relax.TensorType) or call.ty.shape is None:
        return False
    sizes = list(call.ty.shape)
    known = all(isinstance(size, tirx.IntImm) and int(size) > 0 for size in sizes)
    return known and not is_scheduled(mod[call.args[0]])


def _values(
    calls: dict[relax.Var, _ConstantCall], mod: tvm.IRModule
) -> dict[relax.Var, relax.Expr]:
    """Run all calls, in one program."""
    names = {call.kernel: call.kernel.name_hint for call in calls.values()}
    functions = {name: mod[var].with_attr("global_symbol", name) for var, name in names.items()}
    program = tvm.compile(tvm.IRModule(functions), target="llvm")
    values: dict[relax.Expr, tvm.runtime.Tensor] = {}
    for var, call in calls.items():
        shape = [int(size) for size in call.ty.shape]
        values[var] = tvm.runtime.empty(shape, str(call.ty.dtype))
        inputs = [values[a] if isinstance(a, relax.Var) else a.value for a in call.arguments]
        program[names[call.kernel]](*inputs, values[var])
    return {var: relax.const(value) for var, value in values.items()}


@mutator
class _EmptyConstants(PyExprMutator):
    """An empty constant becomes the output of a kernel that writes nothing."""

    def __init__(self, mod: tvm.IRModule):
        super().__init__(mod)
        self._mod = mod

    def module(self) -> tvm.IRModule:
        """Return the module without empty constants."""
        for global_var, function in self._mod.functions_items():
            if isinstance(function, relax.Function):
                self.builder_.update_func(global_var, self.visit_expr(function))
        return self.builder_.get()

    def visit_generic_const_(self, constant: tvm.ir.GenericConst) -> relax.Expr:
        if not _is_empty(constant):
            return constant
        shape, dtype = [int(n) for n in constant.ty.shape], str(constant.ty.dtype)
        return self.builder_.emit_te(topi.full, shape, dtype, tirx.const(0, dtype))


def _empty_constants(mod: tvm.IRModule) -> Iterator[relax.Expr]:
    found: list[relax.Expr] = []

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, tvm.ir.GenericConst) and _is_empty(expr):
            found.append(expr)

    for _, function in mod.functions_items():
        if isinstance(function, relax.Function):
            relax.analysis.post_order_visit(function, visit)
    yield from found


def _is_empty(constant: relax.Expr) -> bool:
    return 0 in constant.value.shape
