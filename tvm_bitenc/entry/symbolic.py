"""Sizes as expressions of the batch, and back."""

from __future__ import annotations

from collections.abc import Collection

from tvm import tirx
from tvm.sym import Analyzer

from ..runtime.size import Size, linear


def as_size(expression: int | tirx.Expr, batch: Collection[tirx.Var]) -> Size | None:
    """Return a linear function of the batch as a size; None for any other expression.

    Parameters
    ----------
    expression : int or tirx.Expr
    batch : collection of tirx.Var
        All of them stand for it.
    """
    if isinstance(expression, (int, tirx.IntImm)):
        return Size(int(expression))
    if not set(tirx.analysis.undefined_vars(expression)) <= set(batch):
        return None

    def value(count: int) -> int:
        analyzer = Analyzer()
        for symbol in batch:
            analyzer.bind(symbol, tirx.const(count, str(symbol.ty)))
        return int(analyzer.simplify(expression))

    return linear(value)


def as_expression(size: Size, batch: tirx.Var | None, dtype: str = "int64") -> tirx.Expr:
    """Return a size as an expression; the batch itself where it is that.

    Parameters
    ----------
    size : Size
    batch : tirx.Var, optional
        None where nothing depends on it.
    dtype : str
    """
    fixed = tirx.const(size.fixed, dtype)
    if batch is None or not size.per_sample:
        return fixed
    grown = batch if str(batch.ty) == dtype else tirx.Cast(dtype, batch)
    if size.per_sample != 1:
        grown = grown * tirx.const(size.per_sample, dtype)
    return grown + fixed if size.fixed else grown
