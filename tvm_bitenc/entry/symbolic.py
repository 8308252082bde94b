"""Expressions of the batch, read as sizes."""

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
