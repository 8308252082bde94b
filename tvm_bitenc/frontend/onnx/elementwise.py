"""Operators that work element by element: what ONNX defines for each type of element."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import ArrayLike
from onnx import NodeProto
from tvm import relax
from tvm.ir import GenericConst
from tvm.relax import op

from ...errors import UnsupportedError
from .constants import literal
from .importer import Converter, Importer
from .model import describe_node

FLOATS = ("float32", "float64")
SIGNED = ("int8", "int16", "int32", "int64")
INTEGERS = (*SIGNED, "uint8", "uint16", "uint32", "uint64")
NUMBERS = (*FLOATS, *INTEGERS)
BOOL = ("bool",)

# Operators of one input: what Relax has for them, and for which types of elements.
_UNARY: dict[str, tuple[Callable, tuple[str, ...]]] = {
    "Abs": (op.abs, (*FLOATS, *SIGNED)),
    "Acos": (op.acos, FLOATS),
    "Acosh": (op.acosh, FLOATS),
    "Asin": (op.asin, FLOATS),
    "Asinh": (op.asinh, FLOATS),
    "Atan": (op.atan, FLOATS),
    "Atanh": (op.atanh, FLOATS),
    "BitwiseNot": (op.bitwise_not, INTEGERS),
    "Ceil": (op.ceil, FLOATS),
    "Cos": (op.cos, FLOATS),
    "Cosh": (op.cosh, FLOATS),
    "Erf": (op.erf, FLOATS),
    "Exp": (op.exp, FLOATS),
    "Floor": (op.floor, FLOATS),
    "IsNaN": (op.isnan, FLOATS),
    "Log": (op.log, FLOATS),
    "Neg": (op.negative, (*FLOATS, *SIGNED)),
    "Not": (op.logical_not, BOOL),
    "Relu": (op.nn.relu, (*FLOATS, *SIGNED)),
    "Round": (op.round, FLOATS),
    "Sigmoid": (op.sigmoid, FLOATS),
    "Sign": (op.sign, (*FLOATS, *SIGNED)),
    "Sin": (op.sin, FLOATS),
    "Sinh": (op.sinh, FLOATS),
    "Sqrt": (op.sqrt, FLOATS),
    "Tan": (op.tan, FLOATS),
    "Tanh": (op.tanh, FLOATS),
}

# Operators of two inputs that broadcast.
_BINARY: dict[str, tuple[Callable, tuple[str, ...]]] = {
    "Add": (op.add, NUMBERS),
    "And": (op.logical_and, BOOL),
    "BitwiseAnd": (op.bitwise_and, INTEGERS),
    "BitwiseOr": (op.bitwise_or, INTEGERS),
    "BitwiseXor": (op.bitwise_xor, INTEGERS),
    "Equal": (op.equal, (*NUMBERS, *BOOL)),
    "Greater": (op.greater, NUMBERS),
    "GreaterOrEqual": (op.greater_equal, NUMBERS),
    "Less": (op.less, NUMBERS),
    "LessOrEqual": (op.less_equal, NUMBERS),
    "Mul": (op.multiply, NUMBERS),
    "Or": (op.logical_or, BOOL),
    "Sub": (op.subtract, NUMBERS),
    "Xor": (op.logical_xor, BOOL),
}

# Operators of any number of inputs that broadcast, one after the other.
_VARIADIC: dict[str, Callable] = {
    "Max": op.maximum,
    "Min": op.minimum,
    "Sum": op.add,
    "Mean": op.add,
}


def scalar(value: ArrayLike, dtype: str) -> GenericConst:
    """Return a number as a tensor of no axes."""
    return literal(np.asarray(value, dtype))


def check_dtype(importer: Importer, node: NodeProto, allowed: tuple[str, ...]) -> str:
    """Return the type of the elements of the first input; refuse what isn't allowed."""
    dtype = importer.dtype(node.input[0])
    if dtype not in allowed:
        raise UnsupportedError(
            describe_node(node), f"works on {dtype}", f"Use one of {', '.join(allowed)}"
        )
    return dtype


def _unary(relax_op: Callable, allowed: tuple[str, ...], importer: Importer, node: NodeProto):
    check_dtype(importer, node, allowed)
    importer.define(node, relax_op(importer.expression(node.input[0])))


def _binary(relax_op: Callable, allowed: tuple[str, ...], importer: Importer, node: NodeProto):
    check_dtype(importer, node, allowed)
    importer.define(node, relax_op(*(importer.expression(name) for name in node.input)))


def _variadic(relax_op: Callable, importer: Importer, node: NodeProto) -> None:
    dtype = check_dtype(importer, node, NUMBERS if node.op_type[0] == "M" else FLOATS)
    first, *others = (importer.expression(name) for name in node.input)
    for other in others:
        first = importer.builder.emit(relax_op(first, other), node.name)
    if node.op_type == "Mean" and others:
        first = op.divide(first, scalar(len(node.input), dtype))
    importer.define(node, first)


def _reciprocal(importer: Importer, node: NodeProto) -> None:
    dtype = check_dtype(importer, node, FLOATS)
    importer.define(node, op.divide(scalar(1, dtype), importer.expression(node.input[0])))


def _div(importer: Importer, node: NodeProto) -> None:
    """Quotient; of integers, truncated."""
    dtype = check_dtype(importer, node, NUMBERS)
    a, b = (importer.expression(name) for name in node.input)
    if dtype in FLOATS:
        return importer.define(node, op.divide(a, b))
    divisor, is_minus_one = _divisor(importer, node, dtype)
    quotient = op.divide(a, divisor)
    if is_minus_one is not None:
        quotient = op.where(is_minus_one, op.subtract(scalar(0, dtype), a), quotient)
    return importer.define(node, quotient)


def _mod(importer: Importer, node: NodeProto) -> None:
    """Remainder: with the sign of the divisor, or as C's fmod."""
    fmod = importer.attributes(node)["fmod"]
    dtype = check_dtype(importer, node, NUMBERS)
    a, b = (importer.expression(name) for name in node.input)
    if dtype in FLOATS:
        return importer.define(node, op.mod(a, b) if fmod else _floored_remainder(importer, a, b))
    divisor, is_minus_one = _divisor(importer, node, dtype)
    result = op.mod(a, divisor) if fmod else op.floor_mod(a, divisor)
    if is_minus_one is not None:
        result = op.where(is_minus_one, scalar(0, dtype), result)
    return importer.define(node, result)


def _floored_remainder(importer: Importer, a: relax.Expr, b: relax.Expr) -> relax.Expr:
    """Numpy's remainder of floats: C's, and a divisor more where their signs differ."""
    emit, zero = importer.builder.emit, scalar(0, str(a.ty.dtype))
    remainder = emit(op.mod(a, b))
    differ = op.logical_xor(emit(op.less(remainder, zero)), emit(op.less(b, zero)))
    is_off = emit(op.logical_and(emit(op.not_equal(remainder, zero)), emit(differ)))
    return op.where(is_off, emit(op.add(remainder, b)), remainder)


def _divisor(importer: Importer, node: NodeProto, dtype: str) -> tuple[relax.Expr, relax.Expr]:
    """Divisor that no CPU stops at, and where the true one is -1.

    Division by 0 has no result in ONNX; here it divides by 1. The lowest number by -1 stops a CPU
    as well, so that is left to a negation.
    """
    name = node.input[1]
    value = importer.constants.get(name)
    if value is not None and not value.all():
        raise UnsupportedError(describe_node(node), "divides integers by 0", "Change its divisor")
    divisor = importer.expression(name)
    if value is not None and (value > 0).all():
        return divisor, None
    one = scalar(1, dtype)
    divisor = op.where(op.equal(divisor, scalar(0, dtype)), one, divisor)
    if dtype not in SIGNED:
        return divisor, None
    is_minus_one = importer.builder.emit(op.equal(divisor, scalar(-1, dtype)))
    return importer.builder.emit(op.where(is_minus_one, one, divisor)), is_minus_one


_MAX_EXPONENT = 64


def _pow(importer: Importer, node: NodeProto) -> None:
    """Power, in the type of the base whatever the exponent's."""
    dtype = check_dtype(importer, node, (*FLOATS, *INTEGERS))
    x, exponent = importer.expression(node.input[0]), importer.constants.get(node.input[1])
    if dtype in FLOATS:
        power = importer.expression(node.input[1])
        power = power if importer.dtype(node.input[1]) == dtype else op.astype(power, dtype)
        return importer.define(node, op.power(x, power))
    if exponent is not None and exponent.size == 1:
        power = exponent.reshape(()).item()
        if power == int(power) and 0 <= power <= _MAX_EXPONENT:
            result = _integer_power(importer, x, int(power), dtype)
            shape = tuple(importer.shape(node.input[0]))
            extra = (1,) * (exponent.ndim - len(shape))
            return importer.define(node, op.reshape(result, (*extra, *shape)) if extra else result)
    if dtype in ("int64", "uint64"):
        raise UnsupportedError(
            describe_node(node),
            f"raises {dtype} to a power that isn't one whole number of 0 to {_MAX_EXPONENT}",
            "Use a constant exponent, or float32",
        )
    # Whole numbers of up to 53 bits are exact in float64.
    power = op.astype(importer.expression(node.input[1]), "float64")
    return importer.define(node, op.astype(op.power(op.astype(x, "float64"), power), dtype))


def _integer_power(importer: Importer, x: relax.Expr, exponent: int, dtype: str) -> relax.Expr:
    """Return a product of squares; it overflows as the product of the factors does."""
    result = None
    while exponent:
        if exponent & 1:
            result = x if result is None else importer.builder.emit(op.multiply(result, x))
        exponent >>= 1
        x = importer.builder.emit(op.multiply(x, x)) if exponent else x
    return importer.builder.emit(op.full_like(x, scalar(1, dtype))) if result is None else result


def _bit_shift(importer: Importer, node: NodeProto) -> None:
    dtype = check_dtype(importer, node, INTEGERS)
    direction = importer.attributes(node).text("direction")
    if dtype in SIGNED or direction not in ("LEFT", "RIGHT"):
        raise UnsupportedError(describe_node(node), f"shifts {dtype} {direction}", "Use unsigned")
    shift = op.left_shift if direction == "LEFT" else op.right_shift
    x, count = (importer.expression(name) for name in node.input)
    bits = int(dtype.removeprefix("uint"))
    is_over = op.greater_equal(count, scalar(bits, dtype))  # A CPU takes the count modulo bits.
    shifted = shift(x, op.where(is_over, scalar(0, dtype), count))
    importer.define(node, op.where(is_over, scalar(0, dtype), shifted))


def _where(importer: Importer, node: NodeProto) -> None:
    check_dtype(importer, node, BOOL)
    importer.define(node, op.where(*(importer.expression(name) for name in node.input)))


def _is_inf(importer: Importer, node: NodeProto) -> None:
    attributes = importer.attributes(node)
    dtype, x = check_dtype(importer, node, FLOATS), importer.expression(node.input[0])
    signs = [
        sign for sign, name in ((1, "detect_positive"), (-1, "detect_negative")) if attributes[name]
    ]
    sides = [op.equal(x, scalar(sign * np.inf, dtype)) for sign in signs]
    if not sides:
        sides = [op.not_equal(op.equal(x, x), op.equal(x, x))]
    importer.define(node, sides[0] if len(sides) == 1 else op.logical_or(*sides))


def _prelu(importer: Importer, node: NodeProto) -> None:
    """One slope, one per channel as an op that later passes know, or any that broadcasts."""
    dtype = check_dtype(importer, node, FLOATS)
    x, slope = importer.expression(node.input[0]), node.input[1]
    shape, sizes = importer.shape(node.input[0]), importer.shape(slope)
    sizes = [1] * (len(shape) - len(sizes)) + sizes
    if len(sizes) != len(shape) or any(b != 1 and a != b for a, b in zip(shape, sizes)):
        raise UnsupportedError(
            describe_node(node),
            f"its slope {tuple(importer.shape(slope))} doesn't broadcast to {tuple(shape)}",
            "Give the slope one size for each axis, e.g. (channels, 1, 1)",
        )
    wide = [axis for axis, size in enumerate(sizes) if size != 1]
    if len(wide) < 2 and shape:
        axis = wide[0] if wide else len(shape) - 1
        flat = op.reshape(importer.expression(slope), (sizes[axis],))
        if slope in importer.constants:
            flat = literal(importer.constants[slope].reshape(sizes[axis]))
        return importer.define(node, op.nn.prelu(x, flat, axis))
    scaled = op.multiply(x, importer.expression(slope))
    return importer.define(node, op.where(op.less(x, scalar(0, dtype)), scaled, x))


def _leaky_relu(importer: Importer, node: NodeProto) -> None:
    check_dtype(importer, node, FLOATS)
    alpha = importer.attributes(node)["alpha"]
    importer.define(node, op.nn.leakyrelu(importer.expression(node.input[0]), alpha))


def _thresholded_relu(importer: Importer, node: NodeProto) -> None:
    dtype, x = check_dtype(importer, node, FLOATS), importer.expression(node.input[0])
    alpha = scalar(importer.attributes(node)["alpha"], dtype)
    importer.define(node, op.where(op.greater(x, alpha), x, scalar(0, dtype)))


def _shrink(importer: Importer, node: NodeProto) -> None:
    dtype, x = check_dtype(importer, node, FLOATS), importer.expression(node.input[0])
    attributes = importer.attributes(node)
    limit, bias = attributes["lambd"], scalar(attributes["bias"], dtype)
    above = op.where(op.greater(x, scalar(limit, dtype)), op.subtract(x, bias), scalar(0, dtype))
    below = op.less(x, scalar(-limit, dtype))
    importer.define(node, op.where(below, op.add(x, bias), above))


def _softplus(importer: Importer, node: NodeProto) -> None:
    """``log(1 + exp(x))``, and for Mish x times its tanh, right where exp(x) is small as well."""
    dtype, x = check_dtype(importer, node, FLOATS), importer.expression(node.input[0])
    emit, one = importer.builder.emit, scalar(1, dtype)
    small = emit(op.exp(op.negative(op.abs(x))))
    near = emit(op.add(one, small))
    # What rounding took from 1 + small is given back: near - 1 is exact, and log(near) goes by it.
    lost = op.equal(near, one)
    part = op.divide(small, op.where(lost, one, op.subtract(near, one)))
    log = op.where(lost, small, op.multiply(op.log(near), part))
    result = op.add(op.maximum(x, scalar(0, dtype)), log)
    if node.op_type == "Mish":
        result = op.multiply(x, op.tanh(emit(result)))
    importer.define(node, result)


CONVERTERS: dict[str, Converter] = {
    **{name: partial(_unary, *entry) for name, entry in _UNARY.items()},
    **{name: partial(_binary, *entry) for name, entry in _BINARY.items()},
    **{name: partial(_variadic, entry) for name, entry in _VARIADIC.items()},
    "BitShift": _bit_shift,
    "Div": _div,
    "IsInf": _is_inf,
    "LeakyRelu": _leaky_relu,
    "Mish": _softplus,
    "Mod": _mod,
    "PRelu": _prelu,
    "Pow": _pow,
    "Reciprocal": _reciprocal,
    "Shrink": _shrink,
    "Softplus": _softplus,
    "ThresholdedRelu": _thresholded_relu,
    "Where": _where,
}
