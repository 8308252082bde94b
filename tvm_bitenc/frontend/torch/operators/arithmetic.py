"""Elementwise arithmetic between tensors and numbers, with torch's promotion of dtypes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike
from tvm import relax
from tvm.ir import GenericConst

from ..checks import dtype_of
from ..node_call import NodeCall, constant

Op = Callable[..., relax.Expr]


def is_float(dtype: str) -> bool:
    """Whether a dtype has fractions."""
    return dtype.startswith(("float", "bfloat"))


def number(value: ArrayLike, like: relax.Expr) -> GenericConst:
    """A constant of an expression's dtype."""
    return constant(np.asarray(value).astype(str(like.ty.dtype)))


def binary(op: Op, of_bools: Op | None = None) -> Callable[[NodeCall], relax.Expr]:
    """Both operands in the dtype of the result."""

    def convert(call: NodeCall) -> relax.Expr:
        a, b = (call.tensor(name, call.dtype) for name in ("self", "other"))
        return call.emit((of_bools if call.dtype == "bool" and of_bools else op)(a, b))

    return convert


def scaled(op: Op, of_bools: Op | None = None) -> Callable[[NodeCall], relax.Expr]:
    """``op(self, alpha * other)``."""

    def convert(call: NodeCall) -> relax.Expr:
        a, b = (call.tensor(name, call.dtype) for name in ("self", "other"))
        if call["alpha"] != 1:
            b = call.emit(relax.op.multiply(b, call.tensor("alpha", call.dtype)))
        return call.emit((of_bools if call.dtype == "bool" and of_bools else op)(a, b))

    return convert


def comparison(op: Op) -> Callable[[NodeCall], relax.Expr]:
    """Both operands in their common dtype; the result is bool."""

    def convert(call: NodeCall) -> relax.Expr:
        operands = [call.graph_value(name) for name in ("self", "other")]
        fakes = [getattr(v, "meta", {}).get("val", v) for v in operands]
        common = torch.empty((), dtype=torch.result_type(*fakes))
        dtype = dtype_of(common, call.where)
        a, b = (call.tensor(name, dtype) for name in ("self", "other"))
        if dtype == "bool":
            a, b = call.cast(a, "int8"), call.cast(b, "int8")
        if operands[0] is operands[1] and is_float(dtype):
            # TVM would say that anything equals itself, what is no number included.
            b = call.emit(relax.op.where(relax.op.isnan(a), number(0, a), a))
        return call.emit(op(a, b))

    return convert


def logical(op: Op) -> Callable[[NodeCall], relax.Expr]:
    """Both operands as truth values."""

    def convert(call: NodeCall) -> relax.Expr:
        return call.emit(op(call.tensor("self", "bool"), call.tensor("other", "bool")))

    return convert


def divide(call: NodeCall) -> relax.Expr:
    """Division; the quotient of integers is a fraction unless a rounding mode is given."""
    mode = call.optional("rounding_mode")
    a, b = (call.tensor(name, call.dtype) for name in ("self", "other"))
    if mode is None:
        return call.emit(relax.op.divide(a, b))
    if not is_float(call.dtype):
        op = relax.op.floor_divide if mode == "floor" else relax.op.divide
        return call.emit(op(a, _divisor(call, b)))
    if mode == "trunc":
        return call.emit(relax.op.trunc(relax.op.divide(a, b)))
    return _floor_quotient(call, a, b)


def _divisor(call: NodeCall, b: relax.Expr) -> relax.Expr:
    """Integers to divide by: no CPU may divide by zero, where torch raises."""
    value = call.value("other")
    if value is None:
        return call.emit(relax.op.where(relax.op.equal(b, number(0, b)), number(1, b), b))
    if not torch.as_tensor(value).all():
        call.refuse("divides integers by zero", "Divide by other numbers")
    return b


def _floor_quotient(call: NodeCall, a: relax.Expr, b: relax.Expr) -> relax.Expr:
    """Quotient of floats rounded down as torch does it: by the remainder, which is exact."""
    quotient, zero = call.emit(relax.op.divide(a, b)), number(0, a)
    rest = call.emit(relax.op.mod(a, b))
    exact = call.emit(relax.op.divide(relax.op.subtract(a, rest), b))
    low = call.emit(_opposite(rest, b, zero))
    exact = call.emit(relax.op.where(low, relax.op.subtract(exact, number(1, a)), exact))
    floor = call.emit(relax.op.floor(exact))
    short = relax.op.greater(relax.op.subtract(exact, floor), number(0.5, a))
    floor = call.emit(relax.op.where(short, relax.op.add(floor, number(1, a)), floor))
    return call.emit(relax.op.where(relax.op.equal(b, zero), quotient, floor))


def _opposite(rest: relax.Expr, divisor: relax.Expr, zero: relax.Expr) -> relax.Expr:
    """Whether a remainder isn't zero, and has the other sign than the divisor."""
    signs = relax.op.not_equal(
        relax.op.astype(relax.op.less(rest, zero), "int8"),
        relax.op.astype(relax.op.less(divisor, zero), "int8"),
    )
    return relax.op.logical_and(relax.op.not_equal(rest, zero), signs)


def fmod(call: NodeCall) -> relax.Expr:
    """Remainder with the sign of the dividend."""
    a, b = (call.tensor(name, call.dtype) for name in ("self", "other"))
    return call.emit(relax.op.mod(a, b if is_float(call.dtype) else _divisor(call, b)))


def remainder(call: NodeCall) -> relax.Expr:
    """Remainder with the sign of the divisor."""
    a, b = (call.tensor(name, call.dtype) for name in ("self", "other"))
    if not is_float(call.dtype):
        return call.emit(relax.op.floor_mod(a, _divisor(call, b)))
    rest = call.emit(relax.op.mod(a, b))
    low = _opposite(rest, b, number(0, a))
    return call.emit(relax.op.where(low, relax.op.add(rest, b), rest))


def power(call: NodeCall) -> relax.Expr:
    """Powers; of integers, with a constant exponent."""
    if is_float(call.dtype):
        base, exponent = (call.tensor(name, call.dtype) for name in ("self", "exponent"))
        return call.emit(relax.op.power(base, exponent))
    exponent = call.value("exponent")
    if not isinstance(exponent, int) or isinstance(exponent, bool) or exponent < 0:
        call.refuse("raises integers to powers that aren't fixed", "Convert them with .float()")
    base = call.tensor("self", call.dtype)
    result = call.emit(relax.op.ones_like(base))
    for digit in bin(exponent)[2:]:
        result = call.emit(relax.op.multiply(result, result))
        if digit == "1":
            result = call.emit(relax.op.multiply(result, base))
    return result


def shift(op: Op) -> Callable[[NodeCall], relax.Expr]:
    """Shift of integers. By as many bits as there are, or more, nothing is left but the sign."""

    def convert(call: NodeCall) -> relax.Expr:
        dtype = call.dtype
        a, bits = (call.tensor(name, dtype) for name in ("self", "other"))
        width = np.iinfo(dtype).bits
        fits = relax.op.logical_and(
            relax.op.greater_equal(bits, number(0, a)), relax.op.less(bits, number(width, a))
        )
        fits = call.emit(fits)
        inside = call.emit(relax.op.where(fits, bits, number(0, a)))
        if op is relax.op.left_shift:
            return call.emit(relax.op.where(fits, op(a, inside), number(0, a)))
        sign = number(0, a) if dtype.startswith("u") else op(a, number(width - 1, a))
        return call.emit(relax.op.where(fits, op(a, inside), sign))

    return convert


def without_nan(op: Op) -> Callable[[NodeCall], relax.Expr]:
    """The larger or smaller operand, or the one that is a number."""

    def convert(call: NodeCall) -> relax.Expr:
        a, b = (call.tensor(name, call.dtype) for name in ("self", "other"))
        if not is_float(call.dtype):
            return call.emit(op(a, b))
        a = call.emit(relax.op.where(relax.op.isnan(a), b, a))
        b = call.emit(relax.op.where(relax.op.isnan(b), a, b))
        return call.emit(op(a, b))

    return convert


def atan2(call: NodeCall) -> relax.Expr:
    """Angle of points; Relax's own divides, and knows one half of the circle."""
    y, x = (call.tensor(name, call.dtype) for name in ("self", "other"))
    return call.emit(relax.op.atan2(y, x))


def where(call: NodeCall) -> relax.Expr:
    """One of two values."""
    condition = call.tensor("condition", "bool")
    a, b = (call.tensor(name, call.dtype) for name in ("self", "other"))
    return call.emit(relax.op.where(condition, a, b))


_op = relax.op
_COMPARISONS = {
    "eq": _op.equal,
    "ne": lambda a, b: _op.logical_not(_op.equal(a, b)),  # TVM's own is false for NaN.
    "lt": _op.less,
    "le": _op.less_equal,
    "gt": _op.greater,
    "ge": _op.greater_equal,
}
_BITS = {
    "and": binary(_op.bitwise_and, _op.logical_and),
    "or": binary(_op.bitwise_or, _op.logical_or),
    "xor": binary(_op.bitwise_xor, _op.logical_xor),
}
_SHIFTS = {
    "bitwise_left_shift": shift(_op.left_shift),
    "bitwise_right_shift": shift(_op.right_shift),
    "__lshift__": shift(_op.left_shift),
    "__rshift__": shift(_op.right_shift),
}
_BY_KIND = {
    "add": scaled(_op.add, _op.logical_or),
    "sub": scaled(_op.subtract),
    "mul": binary(_op.multiply, _op.logical_and),
    "div": divide,
    "fmod": fmod,
    "remainder": remainder,
    **{name: comparison(op) for name, op in _COMPARISONS.items()},
    **{f"bitwise_{name}": convert for name, convert in _BITS.items()},
    **{f"__{name}__": convert for name, convert in _BITS.items()},
    **_SHIFTS,
}

OPERATORS: dict[str, Callable[[NodeCall], relax.Expr]] = {
    **{f"{name}.Tensor": convert for name, convert in _BY_KIND.items()},
    **{f"{name}.Scalar": convert for name, convert in _BY_KIND.items()},
    "div.Tensor_mode": divide,
    "div.Scalar_mode": divide,
    "pow.Scalar": power,
    "pow.Tensor_Scalar": power,
    "pow.Tensor_Tensor": power,
    "maximum.default": binary(_op.maximum, _op.logical_or),
    "minimum.default": binary(_op.minimum, _op.logical_and),
    "fmax.default": without_nan(_op.maximum),
    "fmin.default": without_nan(_op.minimum),
    "atan2.default": atan2,
    "logical_and.default": logical(_op.logical_and),
    "logical_or.default": logical(_op.logical_or),
    "logical_xor.default": logical(_op.logical_xor),
    "where.self": where,
}
