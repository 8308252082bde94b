"""Which bits of a tensor an expression holds: ``remainder(floor(x / 4), 2)``, ``(n >> 2) & 1``.

Front ends spell a remainder as C's, corrected where signs differ, and guard shifts by too much;
what such a correction makes of each number that it may meet is computed, not guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from tvm import relax

from ...encoding import are_powers_of_two
from ..rewrite import Graph
from .dag import once_per_variable
from .float32 import evaluate, function_of, is_constant, op_name

MAX_BITS = 8
INTEGERS = {"uint8": 8, "int8": None, "int16": None, "int32": None, "int64": None}  # Bits, or all.


@dataclass(frozen=True)
class Bits:
    """The integer floor(source / 2^low), or bits of it.

    Parameters
    ----------
    source : relax.Expr
        A tensor of numbers; of float32, they are rounded down.
    cast : str
        Integer type that it is cast to first, empty for none: that rounds towards 0.
    low : int
        The lowest bit.
    count : int or None
        How many bits from there on; None for all, and the sign.
    is_whole : bool
        Whether it is that integer; else a number of which it is the floor.
    """

    source: relax.Expr
    cast: str
    low: int
    count: int | None
    is_whole: bool

    @property
    def is_plane(self) -> bool:
        """Whether it is one bit: 0 or 1."""
        return self.is_whole and self.count == 1

    def shifted(self, places: int) -> Bits | None:
        """Divided by 2^places, or None where no bit is left, or none of its own is the lowest."""
        if places < 0 or (self.count is not None and places >= self.count):
            return None
        count = None if self.count is None else self.count - places
        return replace(self, low=self.low + places, count=count)

    def lowest(self, count: int) -> Bits:
        """Modulo 2^count."""
        return replace(self, count=count if self.count is None else min(count, self.count))


def _operands(expr: relax.Expr, graph: Graph) -> list[relax.Expr]:
    """What a question about bits asks itself about."""
    call = graph.definition(expr)
    return list(call.args) if op_name(call) in RULES else []


@once_per_variable(_operands)
def bits_of(expr: relax.Expr, graph: Graph) -> Bits | None:
    """Bits of a tensor that an expression is; a tensor itself is all of its own."""
    call = graph.definition(expr)
    rule = RULES.get(op_name(call))
    found = None if rule is None else rule(call, graph)
    return _of_itself(expr) if found is None else found


def _of_itself(expr: relax.Expr) -> Bits | None:
    dtype = str(getattr(expr.ty, "dtype", ""))
    if dtype == "float32":
        return Bits(expr, "", 0, None, is_whole=False)
    return Bits(expr, "", 0, INTEGERS[dtype], is_whole=True) if dtype in INTEGERS else None


def _scalar(expr: relax.Expr, graph: Graph) -> float | None:
    value = evaluate(expr, graph)
    return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None


def _exponent(expr: relax.Expr, graph: Graph) -> int | None:
    """n of a constant 2^n."""
    value = _scalar(expr, graph)
    if value is None or value <= 0 or not are_powers_of_two(np.array(value)):
        return None
    return int(np.log2(value))


def _divide(call: relax.Call, graph: Graph) -> Bits | None:
    bits, places = bits_of(call.args[0], graph), _exponent(call.args[1], graph)
    if bits is None or places is None:
        return None
    is_float = str(call.ty.dtype) == "float32"
    quotient = bits.shifted(places) if is_float else None
    return None if quotient is None else replace(quotient, is_whole=False)


def _multiply(call: relax.Call, graph: Graph) -> Bits | None:
    bits, places = bits_of(call.args[0], graph), _exponent(call.args[1], graph)
    if bits is None or places is None or places > 0 or str(call.ty.dtype) != "float32":
        return None
    quotient = bits.shifted(-places)
    return None if quotient is None else replace(quotient, is_whole=False)


def _floor(call: relax.Call, graph: Graph) -> Bits | None:
    bits = bits_of(call.args[0], graph)
    return None if bits is None else replace(bits, is_whole=True)


def _floor_mod(call: relax.Call, graph: Graph) -> Bits | None:
    bits, count = bits_of(call.args[0], graph), _exponent(call.args[1], graph)
    return bits.lowest(count) if bits and bits.is_whole and count else None


def _bitwise_and(call: relax.Call, graph: Graph) -> Bits | None:
    bits, mask = bits_of(call.args[0], graph), _scalar(call.args[1], graph)
    if bits is None or mask is None or mask <= 0 or not are_powers_of_two(np.array(mask + 1)):
        return None
    return bits.lowest(int(mask).bit_length()) if bits.is_whole else None


def _right_shift(call: relax.Call, graph: Graph) -> Bits | None:
    bits, places = bits_of(call.args[0], graph), _scalar(call.args[1], graph)
    return bits.shifted(int(places)) if bits and places is not None else None


def _where(call: relax.Call, graph: Graph) -> Bits | None:
    condition = _scalar(call.args[0], graph)
    if condition is not None:
        return bits_of(call.args[1 if condition else 2], graph)
    remainder = graph.definition(call.args[2])
    if op_name(remainder) != "relax.mod":
        return None
    bits, count = bits_of(remainder.args[0], graph), _exponent(remainder.args[1], graph)
    if bits is None or not bits.is_whole or not count or count > MAX_BITS:
        return None
    # What C's remainder of integers may be, and what becomes of it.
    rests = np.arange(1 - 2**count, 2**count).astype(np.float32)
    corrected = _substituted(call, call.args[2], rests, graph)
    is_floored = corrected is not None and np.array_equal(corrected, rests % 2**count)
    return bits.lowest(count) if is_floored else None


def _substituted(
    expr: relax.Expr, variable: relax.Expr, values: np.ndarray, graph: Graph
) -> np.ndarray | None:
    """Value of an expression of one variable, None where it isn't one; of few ops by design."""
    if expr.same_as(variable):
        return values
    if is_constant(expr, graph):
        return evaluate(expr, graph)
    call = graph.definition(expr)
    function = function_of(call) if op_name(call) else None
    if function is None or op_name(call) == "relax.mod":
        return None
    found = [_substituted(argument, variable, values, graph) for argument in call.args]
    return None if any(value is None for value in found) else function(*found)


def _astype(call: relax.Call, graph: Graph) -> Bits | None:
    bits, dtype = bits_of(call.args[0], graph), str(call.attrs.dtype)
    if bits is None:
        return None
    if bits.is_whole and bits.count is not None and bits.count <= _bits_held(dtype):
        return bits
    is_source = bits.source.same_as(call.args[0]) and not bits.cast and not bits.is_whole
    if is_source and dtype in ("int32", "int64"):
        return Bits(bits.source, dtype, 0, None, is_whole=True)
    return None


def _bits_held(dtype: str) -> int:
    """How many bits of a number that isn't negative each value of a type can be."""
    if dtype in ("bool", "int8"):
        return 1 if dtype == "bool" else 7
    return MAX_BITS if dtype in (*INTEGERS, "float16", "bfloat16", "float32", "float64") else 0


RULES: dict[str, Callable[[relax.Call, Graph], Bits | None]] = {
    "relax.divide": _divide,
    "relax.multiply": _multiply,
    "relax.floor": _floor,
    "relax.floor_mod": _floor_mod,
    "relax.bitwise_and": _bitwise_and,
    "relax.right_shift": _right_shift,
    "relax.where": _where,
    "relax.astype": _astype,
}
