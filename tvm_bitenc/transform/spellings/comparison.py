"""Signs spelt as comparisons: two levels, 1 bit."""

from __future__ import annotations

import numpy as np
from tvm import relax

from ...encoding import Encoding
from ...errors import UnsupportedError
from ...op.quantize import quantize
from ..analysis.float32 import evaluate, op_name
from ..rewrite import Graph

# Whether the constant is the first operand of the difference, and whether "difference >= 0" means
# that the comparison holds. A difference of float32 numbers is 0 only where they are equal, and has
# the right sign: this is what gradual underflow is for.
_DIFFERENCES = {
    "relax.greater_equal": (False, True),
    "relax.less": (False, False),
    "relax.less_equal": (True, True),
    "relax.greater": (True, False),
}


def where_comparison(call: relax.Call, graph: Graph) -> relax.Expr | None:
    """``where(x >= c, a, b)`` with constants a and b, and with any other comparison."""
    if op_name(call) != "relax.where":
        return None
    yes, no = (_lone_constant(argument, graph) for argument in call.args[1:])
    return None if yes is None or no is None else _two_levels(call.args[0], yes, no, graph)


def cast_comparison(call: relax.Call, graph: Graph) -> relax.Expr | None:
    """``astype(x >= c, "float32")``, and with any other comparison."""
    if op_name(call) != "relax.astype" or str(call.attrs.dtype) != "float32":
        return None
    return _two_levels(call.args[0], np.float32(1), np.float32(0), graph)


def _two_levels(
    condition: relax.Expr, yes: np.float32, no: np.float32, graph: Graph
) -> relax.Expr | None:
    """`yes` where a comparison holds, else `no`, as one quantizer of the difference."""
    comparison = graph.definition(condition)
    if op_name(comparison) not in _DIFFERENCES:
        return None
    constant = _lone_constant(comparison.args[1], graph)
    if constant is None or str(comparison.args[0].ty.dtype) != "float32":
        return None
    constant_first, holds = _DIFFERENCES[op_name(comparison)]
    high, low = (yes, no) if holds else (no, yes)
    encoding = two_levels(low, high) if high > low else two_levels(-low, -high)
    if encoding is None:
        return None
    difference = _difference(comparison.args[0], constant, constant_first, graph)
    signs = quantize(difference, encoding)
    return signs if high > low else relax.op.negative(graph.emit(signs))


def two_levels(low: np.float32, high: np.float32) -> Encoding | None:
    """Encoding of the sign with these two levels; None if float32 doesn't hit them."""
    with np.errstate(all="ignore"):
        scale = np.float32(high) - np.float32(low)
        zero_point = np.rint(-2 * np.float64(low) / scale) / 2 + 0.0 if scale > 0 else np.nan
    try:
        encoding = Encoding(1, scale, zero_point, rounding="sign")
    except UnsupportedError:
        return None
    hit = encoding.dequantize(np.arange(2)) == np.array([low, high], np.float32)
    return encoding if hit.all() else None


def _difference(
    x: relax.Expr, constant: np.float32, constant_first: bool, graph: Graph
) -> relax.Expr:
    if constant_first:
        difference = relax.op.subtract(relax.const(constant), x)
        return graph.emit(relax.op.negative(x) if constant == 0 else difference)
    return x if constant == 0 else graph.emit(relax.op.subtract(x, relax.const(constant)))


def _lone_constant(expr: relax.Expr, graph: Graph) -> np.float32 | None:
    """Value of a constant that is the same for all elements."""
    definition = graph.definition(expr)
    if op_name(definition) in ("relax.full", "relax.full_like"):
        return _lone_constant(definition.args[1], graph)
    if op_name(definition) == "relax.negative":
        opposite = _lone_constant(definition.args[0], graph)
        return None if opposite is None else -opposite
    value = evaluate(definition, graph)
    if value is None or np.size(value) == 0 or not np.all(value == np.ravel(value)[0]):
        return None
    return np.float32(np.ravel(value)[0])
