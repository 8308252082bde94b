"""Constants are computed while compiling, but never by a kernel that is scheduled for the target.

Before::

    a = R.call_tir(cls.add, (one, one), out_ty)
    b = R.call_tir(cls.packed_encode, (one,), out_ty)   # tirx.is_scheduled

After::

    a = two
    b = R.call_tir(cls.packed_encode, (one,), out_ty)

`relax.transform.FoldConstant` compiles what it runs for LLVM's plain CPU, whatever the target. A
scheduled kernel calls instructions of the target by name, and LLVM ends the process where it meets
one that the plain CPU lacks. So those kernels are out of its sight, and run with the model.
"""

from __future__ import annotations

from collections.abc import Iterator

import tvm
from tvm import relax, tirx, topi
from tvm.relax.expr_functor import PyExprMutator, mutator


@tvm.transform.module_pass(opt_level=0, name="bitenc.FoldConstants")
class FoldConstants:
    """Fold calls whose arguments are constants, unless they are calls of scheduled kernels."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
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
