"""Functions of single numbers, and clamping."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax

from ..node_call import NodeCall, constant
from .arithmetic import is_float, number

_op = relax.op


def function(op: Callable[[relax.Expr], relax.Expr]) -> Callable[[NodeCall], relax.Expr]:
    """A function of one tensor, evaluated in the dtype of its result."""
    return lambda call: call.emit(op(call.tensor("self", call.dtype)))


def rounding(op: Callable[[relax.Expr], relax.Expr]) -> Callable[[NodeCall], relax.Expr]:
    """A rounding, which leaves integers alone."""

    def convert(call: NodeCall) -> relax.Expr:
        x = call.tensor("self", call.dtype)
        return call.emit(op(x)) if is_float(call.dtype) else x

    return convert


def round_decimals(call: NodeCall) -> relax.Expr:
    """Round to places before or behind the point."""
    x, decimals = call.tensor("self", call.dtype), call["decimals"]
    if not is_float(call.dtype):
        return x
    scale = number(10.0 ** abs(decimals), x)
    there, back = (_op.multiply, _op.divide) if decimals > 0 else (_op.divide, _op.multiply)
    return call.emit(back(_op.round(there(x, scale)), scale))


def test(op: Callable[[relax.Expr], relax.Expr]) -> Callable[[NodeCall], relax.Expr]:
    """A test for what only floats can be."""

    def convert(call: NodeCall) -> relax.Expr:
        x = call.tensor("self")
        if not is_float(str(x.ty.dtype)):
            return call.full(constant(np.False_))
        return call.emit(op(x))

    return convert


def absolute(call: NodeCall) -> relax.Expr:
    """Absolute value; unsigned integers have it already."""
    x = call.tensor("self", call.dtype)
    return x if call.dtype.startswith("u") else call.emit(_op.abs(x))


def bitwise_not(call: NodeCall) -> relax.Expr:
    """All bits inverted: of truth values, the only one."""
    x = call.tensor("self")
    return call.emit((_op.logical_not if call.dtype == "bool" else _op.bitwise_not)(x))


def logical_not(call: NodeCall) -> relax.Expr:
    """Whether a value is zero."""
    return call.emit(_op.logical_not(call.tensor("self", "bool")))


def log1p(x: relax.Expr) -> relax.Expr:
    """log(1 + x), right for small x as well: the error of 1 + x is divided out."""
    one = number(1, x)
    sum_ = _op.add(x, one)
    difference = _op.subtract(sum_, one)
    small = _op.equal(difference, number(0, x))
    infinite = _op.equal(sum_, number(np.inf, x))
    exact = _op.divide(_op.multiply(_op.log(sum_), x), difference)
    return _op.where(small, x, _op.where(infinite, sum_, exact))


def expm1(x: relax.Expr) -> relax.Expr:
    """exp(x) - 1, right for small x as well, by the same means."""
    one = number(1, x)
    power = _op.exp(x)
    difference = _op.subtract(power, one)
    plain = _op.logical_or(
        _op.equal(difference, number(-1, x)), _op.equal(power, number(np.inf, x))
    )
    exact = _op.divide(_op.multiply(difference, x), _op.log(power))
    return _op.where(_op.equal(difference, number(0, x)), x, _op.where(plain, difference, exact))


def signbit(call: NodeCall) -> relax.Expr:
    """Whether a number has a minus, minus zero included."""
    return _signbit(call, call.tensor("self"))


def copysign(call: NodeCall) -> relax.Expr:
    """One number with the sign of another."""
    x, sign = (call.tensor(name, call.dtype) for name in ("self", "other"))
    x = call.emit(_op.abs(x))
    return call.emit(_op.where(_signbit(call, sign), _op.negative(x), x))


def _signbit(call: NodeCall, x: relax.Expr) -> relax.Expr:
    zero = number(0, x)
    if not is_float(str(x.ty.dtype)):
        return call.emit(_op.less(x, zero))
    minus_zero = _op.logical_and(_op.equal(x, zero), _op.less(_op.divide(number(1, x), x), zero))
    return call.emit(_op.logical_or(_op.less(x, zero), minus_zero))


def gelu(call: NodeCall) -> relax.Expr:
    """Gaussian error linear unit, in either form."""
    op = {"none": _op.nn.gelu, "tanh": _op.nn.gelu_tanh}[call["approximate"]]
    return call.emit(op(call.tensor("self")))


def elu(call: NodeCall) -> relax.Expr:
    """``scale * (x if x > 0 else alpha * (exp(input_scale * x) - 1))``."""
    x = call.tensor("self")
    alpha, scale, input_scale = (float(call[n]) for n in ("alpha", "scale", "input_scale"))
    curve = call.emit(expm1(_op.multiply(x, number(input_scale, x)) if input_scale != 1 else x))
    curve = call.emit(_op.multiply(curve, number(alpha * scale, x)))
    line = call.emit(_op.multiply(x, number(scale, x))) if scale != 1 else x
    return call.emit(_op.where(_op.greater(x, number(0, x)), line, curve))


def leaky_relu(call: NodeCall) -> relax.Expr:
    """A slope for negative numbers."""
    return call.emit(_op.nn.leakyrelu(call.tensor("self"), float(call["negative_slope"])))


def hardtanh(call: NodeCall) -> relax.Expr:
    """Clamp between two numbers."""
    return _clamped(call, call["min_val"], call["max_val"])


def clamp(call: NodeCall) -> relax.Expr:
    """Clamp between numbers or tensors, either of which may be missing."""
    return _clamped(call, call["min"], call["max"])


def _clamped(call: NodeCall, low: Any, high: Any) -> relax.Expr:
    x, numbers = call.tensor("self", call.dtype), (int, float, type(None))
    plain = isinstance(low, numbers) and isinstance(high, numbers) and is_float(call.dtype)
    if plain:
        low = -math.inf if low is None else low
        high = math.inf if high is None else high
        if low <= high:
            return call.emit(_op.clip(x, low, high))
    if low is not None:
        x = call.emit(_op.maximum(x, call.as_tensor(low, call.dtype)))
    if high is not None:  # Torch gives this one where they cross.
        x = call.emit(_op.minimum(x, call.as_tensor(high, call.dtype)))
    return x


def to_copy(call: NodeCall) -> relax.Expr:
    """A cast. Negative floats reach unsigned integers through signed ones, as in torch."""
    call.read("dtype")
    x, dtype = call.tensor("self"), call.dtype
    if dtype.startswith("uint") and is_float(str(x.ty.dtype)):
        x = call.cast(x, "int64")
    return call.cast(x, dtype)


def identity(call: NodeCall) -> relax.Expr:
    """The tensor itself."""
    return call["self"]


def copy(call: NodeCall) -> relax.Expr:
    """Another tensor in this one's dtype and shape."""
    call.read("self")
    return call.emit(_op.broadcast_to(call.tensor("src", call.dtype), call.shape))


def scalar_tensor(call: NodeCall) -> relax.Expr:
    """A number, or size, as a tensor."""
    call.read("dtype")
    return call.tensor("s", call.dtype)


def filled(name: str) -> Callable[[NodeCall], relax.Expr]:
    """A converter of ops that fill a tensor with one number, named so in their schema."""

    def convert(call: NodeCall) -> relax.Expr:
        call.read("dtype", "size", "self")
        return call.full(call.tensor(name, call.dtype))

    return convert


def dropout(call: NodeCall) -> tuple[relax.Expr, ...]:
    """Dropout in eval mode, and its mask."""
    if call["train"] is not False:
        call.refuse("is in training mode", "Export the model after model.eval()")
    call.read("p")
    if not call.is_used(1):
        return call.tensor("input"), None
    mask = _op.full(call.shape, constant(np.True_), "bool")
    return call.tensor("input"), call.emit(mask)


_LN2, _LN10 = math.log(2), math.log(10)
_FUNCTIONS = {
    "acos": _op.acos,
    "acosh": _op.acosh,
    "asin": _op.asin,
    "asinh": _op.asinh,
    "atan": _op.atan,
    "atanh": _op.atanh,
    "cos": _op.cos,
    "cosh": _op.cosh,
    "erf": _op.erf,
    "exp": _op.exp,
    "exp2": lambda x: _op.exp(_op.multiply(x, number(_LN2, x))),
    "expm1": expm1,
    "log": _op.log,
    "log1p": log1p,
    "log2": lambda x: _op.divide(_op.log(x), number(_LN2, x)),
    "log10": lambda x: _op.divide(_op.log(x), number(_LN10, x)),
    "neg": _op.negative,
    "reciprocal": lambda x: _op.divide(number(1, x), x),
    "relu": _op.nn.relu,
    "rsqrt": _op.rsqrt,
    "sigmoid": _op.sigmoid,
    "sign": _op.sign,
    "sgn": _op.sign,
    "sin": _op.sin,
    "sinh": _op.sinh,
    "sqrt": _op.sqrt,
    "square": lambda x: _op.multiply(x, x),
    "tan": _op.tan,
    "tanh": _op.tanh,
}
_ROUNDINGS = {"ceil": _op.ceil, "floor": _op.floor, "round": _op.round, "trunc": _op.trunc}
_TESTS = {"isnan": _op.isnan, "isinf": _op.isinf, "isfinite": _op.isfinite}
_SAME = ("alias", "clone", "contiguous", "detach", "lift_fresh", "lift_fresh_copy")

OPERATORS: dict[str, Callable] = {
    **{f"{name}.default": function(op) for name, op in _FUNCTIONS.items()},
    **{f"{name}.default": rounding(op) for name, op in _ROUNDINGS.items()},
    **{f"{name}.default": test(op) for name, op in _TESTS.items()},
    **{f"{name}.default": identity for name in _SAME},
    "_to_copy.default": to_copy,
    "abs.default": absolute,
    "bitwise_not.default": bitwise_not,
    "clamp.Tensor": clamp,
    "clamp.default": clamp,
    "copy.default": copy,
    "copysign.Scalar": copysign,
    "copysign.Tensor": copysign,
    "elu.default": elu,
    "fill.Scalar": filled("value"),
    "fill.Tensor": filled("value"),
    "full.default": filled("fill_value"),
    "full_like.default": filled("fill_value"),
    "gelu.default": gelu,
    "hardtanh.default": hardtanh,
    "leaky_relu.default": leaky_relu,
    "logical_not.default": logical_not,
    "native_dropout.default": dropout,
    "round.decimals": round_decimals,
    "scalar_tensor.default": scalar_tensor,
    "signbit.default": signbit,
}
