"""Lower and upper limits of float32 values. What a NaN becomes is said by each function.

TVM's ``max(a, b)`` is ``a if a > b else b``, so of a NaN and a number it returns the second. That
is what x86's own instruction does, hence the order of the operands costs nothing.
"""

from __future__ import annotations

from tvm import tirx


def at_least(value: tirx.Expr, limit: tirx.Expr) -> tirx.Expr:
    """Return the larger one; NaN stays NaN, and -0 stays -0 beside a limit of 0, as in torch."""
    return tirx.max(limit, value)


def at_most(value: tirx.Expr, limit: tirx.Expr) -> tirx.Expr:
    """Return the smaller one; NaN stays NaN."""
    return tirx.min(limit, value)


def limited(value: tirx.Expr, low: tirx.Expr, high: tirx.Expr) -> tirx.Expr:
    """Return the value within limits; NaN becomes the lower one."""
    return tirx.min(tirx.max(value, low), high)
