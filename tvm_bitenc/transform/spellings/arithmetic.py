"""Quantizers spelt out: divide, round, clip, multiply, with a zero point anywhere between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import relax

from ...encoding import Encoding, are_powers_of_two
from ...errors import UnsupportedError
from ...op.quantize import quantize
from ..analysis.float32 import evaluate, op_name
from ..analysis.unary import Unary, unary_of
from ..rewrite import Graph

_ROUNDINGS = {
    "relax.round": "half_even",
    "relax.floor": "floor",
    "relax.ceil": "ceil",
    "relax.trunc": "toward_zero",
}
_CLIPS = ("relax.clip", "relax.maximum", "relax.minimum", "relax.nn.relu")


@dataclass
class _Reading:
    """What was read of a spelling, from its end towards its input.

    Parameters
    ----------
    low, high : float
        Bounds of the integers that are scaled in the end.
    late : float
        Sum of what is added behind the rounding.
    early : float
        What is added in front of it.
    rounding : str
        Empty as long as none was met.
    """

    low: float = -np.inf
    high: float = np.inf
    late: float = 0.0
    early: float = 0.0
    rounding: str = ""

    def clip(self, low: float, high: float) -> bool:
        """Take a clip in; False if its bounds aren't whole, or something is added behind it."""
        if self.rounding and self.early:
            return False
        if any(np.isfinite(bound) and bound != np.rint(bound) for bound in (low, high)):
            return False
        self.low, self.high = max(self.low, low + self.late), min(self.high, high + self.late)
        return True

    def add(self, term: float) -> bool:
        """Take a sum in; False if it isn't exact."""
        if 2 * term != np.rint(2 * term) or abs(term) > 2**15:
            return False
        if not self.rounding:
            self.late += term
            return True
        first = self.early == 0
        self.early = term
        return first

    def encoding(self, scale: np.ndarray) -> Encoding | None:
        """Encoding of the spelling; None if there is none."""
        codes = self.high - self.low
        if not self.rounding or self.early != -self.late or not 1 <= codes <= 255:
            return None
        # A code is the rounded number, plus what is added behind, less the lowest.
        late = self.late - self.low
        if late != np.rint(late):
            return None
        try:
            return Encoding(
                int(codes).bit_length(),
                scale,
                0.0 - self.low,  # Never -0.
                rounding=self.rounding,
                max_code=int(codes),
                late_zero_point=int(late),
            )
        except UnsupportedError:
            return None  # The arithmetic has a meaning all the same, so it stays float.


def divide_round_clip_multiply(call: relax.Call, graph: Graph) -> relax.Expr | None:
    """``(clip(round(x / s + a) + b, low, high) + c) * s`` with a + b + c = 0, any of them left out.

    The rounding may go down, up or towards zero, and the clip may come before it.
    """
    scaled = _with_constant(call, graph)
    if scaled is None or scaled.name != "relax.multiply":
        return None
    expr, scale = graph.definition(scaled.argument), scaled.constant
    reading = _Reading()
    while op_name(expr) not in ("relax.divide", "relax.multiply"):
        inner = _read(expr, reading, graph)
        if inner is None:
            return None
        expr = graph.definition(inner)
    divided = _with_constant(expr, graph)
    if divided is None or not _is_division_by(expr, divided.constant, scale):
        return None
    encoding = reading.encoding(scale.reshape(()))
    return None if encoding is None else quantize(divided.argument, encoding)


def _read(expr: relax.Expr, reading: _Reading, graph: Graph) -> relax.Expr | None:
    """Take one op in and return its argument; None if it doesn't belong to the spelling."""
    name = op_name(expr)
    if name in _ROUNDINGS:
        if reading.rounding:
            return None
        reading.rounding = _ROUNDINGS[name]
        return expr.args[0]
    if name in _CLIPS:
        bounds = _bounds(expr, graph)
        return expr.args[0] if bounds is not None and reading.clip(*bounds) else None
    found = _with_constant(expr, graph)
    if name not in ("relax.add", "relax.subtract") or found is None:
        return None
    term = float(found.constant.reshape(()))
    return found.argument if reading.add(term if name == "relax.add" else -term) else None


def _bounds(expr: relax.Call, graph: Graph) -> tuple[float, float] | None:
    numbers = []
    for argument in expr.args[1:]:
        value = evaluate(argument, graph)
        if value is None or np.size(value) != 1:
            return None
        numbers.append(float(np.reshape(value, ())))
    if op_name(expr) == "relax.clip":
        return numbers[0], numbers[1]
    if op_name(expr) == "relax.minimum":
        return -np.inf, numbers[0]
    return (numbers or [0.0])[0], np.inf


def _is_division_by(expr: relax.Call, constant: np.ndarray, scale: np.ndarray) -> bool:
    """Whether an op gives the very floats of a division by a scale."""
    if op_name(expr) == "relax.divide":
        return bool(np.array_equal(constant.reshape(()), scale.reshape(())))
    # Only a power of two has a reciprocal in float32.
    scale = scale.reshape(())
    with np.errstate(all="ignore"):
        reciprocal = np.float32(1) / scale
    return bool(scale > 0 and are_powers_of_two(scale) and reciprocal == constant.reshape(()))


def _with_constant(expr: relax.Expr, graph: Graph) -> Unary | None:
    """Read an op of two arguments, the second of which is a constant; or the first may be."""
    if not op_name(expr) or len(expr.args) != 2:
        return None
    op = unary_of(expr, 0, graph)
    if op is None and op_name(expr) != "relax.subtract":
        op = unary_of(expr, 1, graph)
    return op if op is not None and op.constant.size == 1 else None
