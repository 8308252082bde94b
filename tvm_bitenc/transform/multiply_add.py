"""Sums of float products round once on every CPU: convolutions, means, interpolation.

Before::

    y[o] = y[o] + x[i] * w[o, i]

After::

    y[o] = fma(x[i], w[o, i], y[o])

LLVM makes that of it where it holds it for fast, which depends on the CPU: Cortex-M4 has the
instruction, but LLVM doesn't choose it, and Cortex-M3 has none. This takes no time where the
instruction is; a bundle for a microcontroller without it brings a function. What the graph itself
rounds twice has a fence between product and sum, see `te.rounded`.
"""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import tirx

from ..features import fuses_multiply_add
from ..target import Target
from ..te.intrinsic import intrinsic
from .loops import map_bodies


@tvm.transform.module_pass(opt_level=0, name="bitenc.MultiplyAdd")
@dataclass(frozen=True)
class MultiplyAdd:
    """Write sums of float32 products as one operation.

    Parameters
    ----------
    target : Target
        Those with an operating system, but without the instruction, keep two: their C library's
        function takes many times as long.
    """

    target: Target

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        if not (
            self.target.is_bare
            or fuses_multiply_add(self.target.features, self.target.architecture)
        ):
            return mod
        return map_bodies(mod, (tirx.Add, _added), (tirx.Sub, _subtracted))


def _added(expr: tirx.Add) -> tirx.Expr:
    for product, other in ((expr.a, expr.b), (expr.b, expr.a)):
        if _is_product(product):
            return _fused(product.a, product.b, other)
    return expr


def _subtracted(expr: tirx.Sub) -> tirx.Expr:
    if _is_product(expr.a):
        return _fused(expr.a.a, expr.a.b, _negative(expr.b))
    if _is_product(expr.b):
        return _fused(_negative(expr.b.a), expr.b.b, expr.a)
    return expr


def _is_product(expr: tirx.Expr) -> bool:
    return isinstance(expr, tirx.Mul) and str(expr.ty).split("x")[0] == "float32"


def _fused(a: tirx.Expr, b: tirx.Expr, c: tirx.Expr) -> tirx.Expr:
    return intrinsic(str(c.ty), "llvm.fma", a, b, c)


def _negative(expr: tirx.Expr) -> tirx.Expr:
    """The opposite of a number, of 0 as well."""
    return expr * tirx.const(-1, str(expr.ty))
