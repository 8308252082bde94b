"""Float32 arithmetic of Relax ops in numpy: the graph's own function, rounded op by op.

Passes evaluate parts of the graph while compiling: `lower` the constant weights, and `fold` the
function between an accumulator and the next quantizer. IEEE 754 defines each of these ops
exactly, so numpy gives what the compiled graph gives.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from tvm import relax
from tvm.ir import Op

from ...encoding import along
from ...op.multiply_add import fused_multiply_add
from ...op.quantize import encode_op, encoding_of, quantize_op
from ...op.reached import count_reached, reached_op
from ...op.registration import constant_value
from ..rewrite import Graph
from . import constant_shaping
from .dag import once_per_variable

MAX_KEPT = 1 << 14  # Numbers of a value that is kept for the next question.


def _clip(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(x, low), high)


def _sign(x: np.ndarray) -> np.ndarray:
    return np.float32(x > 0) - np.float32(x < 0)


def _leaky_relu(x: np.ndarray, slope: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, x * slope)


def _prelu(x: np.ndarray, slope: np.ndarray, axis: int) -> np.ndarray:
    return _leaky_relu(x, along(slope, x.ndim, axis))


def _axis(call: relax.Call) -> int:
    """Axis of a call's channels, counted from the front."""
    return int(call.attrs.axis) % len(call.args[0].ty.shape)


# Ops of one variable and constants that keep or reverse the order of float32 numbers. Rounding to
# nearest keeps order too, so a chain of them is monotone in floating point, not just in theory.
MONOTONE: dict[str, Callable[..., np.ndarray]] = {
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
    "relax.floor": np.floor,
    "relax.ceil": np.ceil,
    "relax.round": np.rint,
    "relax.trunc": np.trunc,
    "relax.sign": _sign,
    "relax.sqrt": np.sqrt,
    "relax.right_shift": np.right_shift,
}

# Ops that are exact as well, but turn back, or tell numbers apart, or read several variables.
_TURNING: dict[str, Callable[..., np.ndarray]] = {
    "relax.abs": np.abs,
    "relax.greater": np.greater,
    "relax.greater_equal": np.greater_equal,
    "relax.less": np.less,
    "relax.less_equal": np.less_equal,
    "relax.where": np.where,
    "relax.not_equal": np.not_equal,
    "relax.logical_and": np.logical_and,
    "relax.logical_or": np.logical_or,
    "relax.logical_not": np.logical_not,
}

# Every op here is exact in IEEE 754. Sigmoid, tanh, exp and the like aren't: their last bits depend
# on the mathematical library of the CPU that runs them, so they are never evaluated here.
ELEMENTWISE = {**MONOTONE, **_TURNING}

# Those of them that carry constants as attributes.
_WITH_ATTRIBUTES: dict[str, Callable[[relax.Call], Callable[..., np.ndarray]]] = {
    "relax.nn.leakyrelu": lambda call: partial(_leaky_relu, slope=np.float32(call.attrs.alpha)),
    "relax.nn.prelu": lambda call: partial(_prelu, axis=_axis(call)),
    "relax.astype": lambda call: lambda x: x.astype(str(call.attrs.dtype)),
    reached_op.name: lambda call: partial(
        count_reached, channel_axis=int(call.attrs["channel_axis"])
    ),
}


def op_name(expr: relax.Expr) -> str:
    """Name of the op that an expression calls, empty for anything else."""
    return expr.op.name if isinstance(expr, relax.Call) and isinstance(expr.op, Op) else ""


def function_of(call: relax.Call) -> Callable[..., np.ndarray] | None:
    """Return the numpy function from a call's arguments to its result; None if it isn't exact."""
    name = op_name(call)
    if name in _WITH_ATTRIBUTES:
        return _WITH_ATTRIBUTES[name](call)
    return ELEMENTWISE.get(name)


def scalar_value(expr: relax.Expr) -> np.ndarray | None:
    """Value of a constant or of a number given as an argument (as `relax.clip` has them)."""
    value = constant_value(expr)
    if value is None and isinstance(getattr(expr, "value", None), (int, float)):
        value = np.float32(expr.value)
    return value


def evaluate(expr: relax.Expr, graph: Graph) -> np.ndarray | None:
    """Value of an expression that depends on constants alone, else None."""
    return _value(expr, graph) if is_constant(expr, graph) else None


@once_per_variable()
def is_constant(expr: relax.Expr, graph: Graph) -> bool:
    """Whether an expression depends on constants alone, through exact ops."""
    expr = graph.definition(expr)
    if scalar_value(expr) is not None:
        return True
    name = op_name(expr)
    if not name:
        return False
    if constant_shaping.moves_constants(expr) or expr.op in (quantize_op, encode_op):
        return is_constant(expr.args[0], graph)
    if function_of(expr) is None:
        return False
    return all(is_constant(argument, graph) for argument in expr.args)


def _is_small(value: np.ndarray | None) -> bool:
    return value is None or value.size <= MAX_KEPT


@once_per_variable(keep=_is_small)
def _value(expr: relax.Expr, graph: Graph) -> np.ndarray | None:
    if not is_constant(expr, graph):
        return None
    expr = graph.definition(expr)
    value = scalar_value(expr)
    if value is not None:
        return value
    if constant_shaping.moves_constants(expr):
        return constant_shaping.FUNCTIONS[op_name(expr)](expr, _constant(expr.args[0], graph))
    if expr.op in (quantize_op, encode_op):
        axis, encoding = int(expr.attrs["axis"]), encoding_of(expr)
        codes = encoding.quantize(_constant(expr.args[0], graph), axis)
        return codes if expr.op == encode_op else encoding.dequantize(codes, axis)
    function = function_of(expr)
    assert function is not None  # Or it weren't constant.
    with np.errstate(all="ignore"):
        return function(*(_constant(argument, graph) for argument in expr.args))


def _constant(expr: relax.Expr, graph: Graph) -> np.ndarray:
    value = _value(expr, graph)
    assert value is not None  # What is made of constants alone has constant operands.
    return value


def float_keys(x: np.ndarray) -> np.ndarray:
    """Integers in the order of float32 numbers: -0 comes just before 0."""
    bits = x.view(np.int32).astype(np.int64)
    return np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF) - 1)


def floats_of_keys(keys: np.ndarray) -> np.ndarray:
    """Inverse of `float_keys`."""
    bits = np.where(keys >= 0, keys, (-(keys + 1)) | 0x80000000)
    return bits.astype(np.uint32).view(np.float32)
