"""Float arithmetic behind accumulators, step by step: scalars in TE, vectors in TIR generators."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import te, tirx

from ..layer import RESIDUAL, FloatStep
from .intrinsic import intrinsic
from .limited import at_least, at_most

# As LLVM calls them.
ROUNDINGS = {
    "round": "llvm.nearbyint",  # Half to even, unless someone changed the mode of the CPU.
    "floor": "llvm.floor",
    "ceil": "llvm.ceil",
    "trunc": "llvm.trunc",
}


def apply_step(
    name: str,
    value: tirx.Expr,
    constants: Sequence[tirx.Expr],
    dtype: str,
    residual: tirx.Expr | None = None,
) -> tirx.Expr:
    """Expression of one step; each rounds on its own and keeps NaN, as the graph's ops do.

    Parameters
    ----------
    name : str
    value : Expr
        float32, or int32 for ``astype``.
    constants : sequence of Expr
    dtype : str
        float32, or a vector of it.
    residual : Expr, optional
    """
    if name == "astype":
        return tirx.Cast(dtype, value)
    if name == "multiply":
        return intrinsic(dtype, "llvm.arithmetic.fence", value * constants[0])
    if name == "divide":
        return value / constants[0]
    if name in ROUNDINGS:
        return intrinsic(dtype, ROUNDINGS[name], value)
    if name == "multiply_add":
        return intrinsic(dtype, "llvm.fma", value, *constants)
    if name == "clip":
        return at_most(at_least(value, constants[0]), constants[1])
    if name == "prelu":
        sloped = intrinsic(dtype, "llvm.arithmetic.fence", value * constants[0])
        return tirx.Select(value > 0, value, sloped)
    if name in ("maximum", "minimum"):
        return (at_least if name == "maximum" else at_most)(value, constants[0])
    return value + (residual if name == RESIDUAL else constants[0])


def float_steps(
    acc: te.Tensor,
    steps: Sequence[FloatStep],
    constants: Sequence[te.Tensor],
    residual: te.Tensor | None,
) -> te.Tensor:
    """Float32 NHWC of int32 accumulators NHWC."""

    def element(*index: tirx.Var) -> tirx.Expr:
        value, left = acc(*index), iter(constants)
        for step in steps:
            own = [next(left)[index[-1]] for _ in step.constants]
            added = residual(*index) if residual is not None and step.name == RESIDUAL else None
            value = apply_step(step.name, value, own, "float32", added)
        return value

    return te.compute(acc.shape, element, name="float_steps")
