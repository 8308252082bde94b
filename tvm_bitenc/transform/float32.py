"""Float32 arithmetic of Relax ops in numpy: the graph's own function, rounded op by op.

Two passes evaluate parts of the graph while compiling: `lower` the constant weights, and `fold`
the function between an accumulator and the next quantizer. IEEE 754 defines each of these ops
exactly, so numpy gives what the compiled graph gives.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import relax
from tvm.ir import Op

from ..op.multiply_add import fused_multiply_add
from ..op.quantize import encode_op, encoding_of, quantize_op
from ..op.registration import constant_value
from . import constant_shaping
from .rewrite import Graph


def _clip(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(x, low), high)


# Ops of one variable and constants that keep or reverse the order of float32 numbers. Rounding to
# nearest keeps order too, so a chain of them is monotone in floating point, not just in theory.
ELEMENTWISE: dict[str, Callable[..., np.ndarray]] = {
    "relax.add": np.add,
    "relax.subtract": np.subtract,
    "relax.multiply": np.multiply,
    "relax.divide": np.divide,
    "relax.maximum": np.maximum,
    "relax.minimum": np.minimum,
    "relax.negative": np.negative,
    "bitenc.multiply_add": fused_multiply_add,
    "relax.clip": _clip,
    "relax.nn.relu": lambda x: np.maximum(x, np.float32(0)),
}

# What else is met among constants.
_CONSTANT_ONLY: dict[str, Callable[..., np.ndarray]] = {
    "relax.abs": np.abs,
    "relax.sqrt": np.sqrt,
    "relax.round": np.rint,
}
_CONSTANT_SHAPING = {
    **constant_shaping.FUNCTIONS,
    "relax.astype": lambda call, x: x.astype(str(call.attrs.dtype)),
}


def op_name(expr: relax.Expr) -> str:
    """Name of the op that an expression calls, empty for anything else."""
    return expr.op.name if isinstance(expr, relax.Call) and isinstance(expr.op, Op) else ""


def scalar_value(expr: relax.Expr) -> np.ndarray | None:
    """Value of a constant or of a number given as an argument (as `relax.clip` has them)."""
    value = constant_value(expr)
    if value is None and isinstance(getattr(expr, "value", None), (int, float)):
        value = np.float32(expr.value)
    return value


def evaluate(expr: relax.Expr, graph: Graph) -> np.ndarray | None:
    """Value of an expression that depends on constants alone, else None."""
    expr = graph.definition(expr)
    value = scalar_value(expr)
    name = op_name(expr)
    if value is not None or not name:
        return value
    if name in _CONSTANT_SHAPING:
        value = evaluate(expr.args[0], graph)
        return None if value is None else _CONSTANT_SHAPING[name](expr, value)
    if expr.op in (quantize_op, encode_op):
        x, encoding = evaluate(expr.args[0], graph), encoding_of(expr)
        if x is None:
            return None
        codes = encoding.quantize(x, int(expr.attrs["axis"]))
        return codes if expr.op == encode_op else encoding.dequantize(codes, expr.attrs["axis"])
    function = ELEMENTWISE.get(name) or _CONSTANT_ONLY.get(name)
    values = [evaluate(argument, graph) for argument in expr.args]
    if function is None or any(value is None for value in values):
        return None
    with np.errstate(all="ignore"):
        return function(*values)
