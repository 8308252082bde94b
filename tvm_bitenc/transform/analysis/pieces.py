"""Functions that are constant piece by piece: quantizers spelt as sums of steps.

::

    y = 3 * (x > -0.5) + 4 * (x > 0.25) + 5 * (x > 1)      # levels 0, 3, 7, 12
    y = where(x > 1, 12, where(x > 0.25, 7, where(x > -0.5, 3, 0)))
    y = 4 * sign(x) + sign(x - 1) + sign(x + 1)

Whatever arithmetic joins them, a function of steps is constant between the numbers where one of the
steps is. Those are found by bisection on the graph's own float32 functions, so the bounds between
levels are exact by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tvm_ffi
from tvm import relax

from ...encoding import Encoding
from ...errors import UnsupportedError
from ...levels import encoding_of_levels
from ...op.quantize import quantize_op
from ...op.registration import is_call_to
from ..rewrite import Graph
from .float32 import float_keys, floats_of_keys, is_constant, op_name
from .forks import function_between, reading_of, source_of
from .grid import ROUNDING_OPS, step_along
from .values import multiples_of

Function = Callable[[np.ndarray], np.ndarray]
COMPARISONS = ("relax.greater", "relax.greater_equal", "relax.less", "relax.less_equal")
STEPS = (*COMPARISONS, *ROUNDING_OPS, "relax.sign")
MAX_PIECES = 256
MAX_SOURCES = 16  # One behind the other, that are tried.
MAX_SHOWN = 8
MAX_MULTIPLE = 1 << 11  # Of the number that levels are multiples of: eight steps of 8 bits.


@dataclass(frozen=True)
class Pieces:
    """A function of one tensor that is constant piece by piece.

    Parameters
    ----------
    source : relax.Expr of float32
    bounds : ndarray of float32
        Rising, the least number of each piece but the first.
    levels : ndarray of float32
        Values, one more than bounds; no two neighbours are the same.
    """

    source: relax.Expr
    bounds: np.ndarray
    levels: np.ndarray

    def encoding(self) -> Encoding:
        """Return the encoding of the levels, with the bounds between them.

        Raises
        ------
        UnsupportedError
            For levels that don't rise, aren't multiples of one number, or take too many planes.
        """
        shown = few_numbers(self.levels)
        if np.any(np.diff(self.levels) <= 0):
            raise UnsupportedError(
                "quantizer", f"its levels {shown} don't rise with its input", "Use positive steps"
            )
        found = multiples_of(self.levels.astype(np.float64), MAX_MULTIPLE)
        if found is None:
            raise UnsupportedError(
                "quantizer",
                f"its levels {shown} aren't whole multiples of one number, so sums aren't integers",
                "Train the coefficients as integers of 8 bits times a scale",
            )
        step, multiples = found
        divisor = int(np.gcd.reduce(np.diff(multiples)))
        if 2 * multiples[0] % divisor:
            divisor = 1  # No zero point would be a multiple of 1/2.
        levels = (multiples - multiples[0]) // divisor
        scale, zero_point = np.float32(step * divisor), -multiples[0] / divisor + 0.0
        return encoding_of_levels(levels.tolist(), self.bounds.tolist(), scale, zero_point)


def few_numbers(values: np.ndarray) -> str:
    """Show some numbers, the first ones of many."""
    rest = ", ..." if len(values) > MAX_SHOWN else ""
    return ", ".join(f"{value:g}" for value in values[:MAX_SHOWN]) + rest


def pieces_of(expr: relax.Expr, graph: Graph) -> Iterator[Pieces]:
    """Read an expression as such a function of each tensor that it is one of, the nearest first.

    Constants that differ between channels make no such function.
    """
    source = source_of(expr, graph)
    for _ in range(MAX_SOURCES):
        if source is None:
            return
        found = _pieces(expr, source, graph)
        if found is not None:
            yield found
        source = source_of(source, graph)


def encoding_by_steps(expr: relax.Expr, graph: Graph) -> tuple[relax.Expr, Encoding] | None:
    """Return the nearest tensor that an expression is a quantizer of, and its encoding."""
    for pieces in pieces_of(expr, graph):
        try:
            return pieces.source, pieces.encoding()
        except UnsupportedError:
            continue  # Levels that fall with c - x rise with x.
    return None


def _pieces(expr: relax.Expr, source: relax.Expr, graph: Graph) -> Pieces | None:
    steps = _steps_between(expr, source, graph)
    is_float = str(getattr(source.ty, "dtype", "")) == "float32"
    if not steps or not is_float or not tvm_ffi.structural_equal(source.ty, expr.ty):
        return None
    found = [_bounds_of(step, source, graph) for step in steps]
    known = [bounds for bounds in found if bounds is not None]
    if len(known) < len(found):
        return None
    bounds, values = np.unique(np.concatenate(known)), _values(expr, source, graph)
    if values is None:
        return None
    starts = np.concatenate([np.array([-np.inf], np.float32), bounds])
    levels = values(starts)
    if len(starts) > MAX_PIECES or not np.isfinite([*levels, *bounds]).all():
        return None
    changes = levels[1:] != levels[:-1]
    if not changes.any():
        return None
    return Pieces(source, bounds[changes], levels[[True, *changes]])


def _steps_between(expr: relax.Expr, source: relax.Expr, graph: Graph) -> list[relax.Expr] | None:
    """Steps that all ways from a source lead through; None if one way leads through none."""
    steps, seen, waiting = list[relax.Expr](), set[relax.Expr](), [expr]
    while waiting:
        var = waiting.pop()
        if var in seen or is_constant(var, graph):
            continue
        seen.add(var)
        call = graph.definition(var)
        if var.same_as(source) or reading_of(call) is None:
            return None
        if is_call_to(call, quantize_op) or op_name(call) in STEPS:
            steps.append(var)
        else:
            waiting.extend(call.args)
    return steps


def _bounds_of(step: relax.Expr, source: relax.Expr, graph: Graph) -> np.ndarray | None:
    """Bounds between the pieces of one step; None if it may turn, or has too many."""
    call = graph.definition(step)
    variables = [argument for argument in call.args if not is_constant(argument, graph)]
    if len(variables) != 1 or step_along(variables[0], source, graph) is None:
        return None
    values = _values(step, source, graph)
    return None if values is None else bounds_between(values)


def bounds_between(function: Function) -> np.ndarray | None:
    """Least number of each piece but the first of a function that never turns; None if too many.

    Parameters
    ----------
    function : callable
        From float32 numbers to numbers.

    Returns
    -------
    ndarray of float32 or None
        Rising.
    """
    low, high = float_keys(np.array([-np.inf, np.inf], np.float32)).reshape(2, 1)
    while True:  # Invariant: the function differs between `low` and `high` of each interval.
        middle = (low + high) // 2
        at_low, at_middle, at_high = (function(floats_of_keys(key)) for key in (low, middle, high))
        if np.isnan([*at_low, *at_middle, *at_high]).any():
            return None
        first, second = at_low != at_middle, at_middle != at_high
        low = np.concatenate([low[first], middle[second]])
        high = np.concatenate([middle[first], high[second]])
        if len(high) > MAX_PIECES:
            return None
        if np.all(high - low == 1):
            return np.sort(floats_of_keys(high)) + np.float32(0)  # Never -0.


def _values(expr: relax.Expr, source: relax.Expr, graph: Graph) -> Function | None:
    """Return the function from numbers of a source to those of an expression.

    None if it isn't the same everywhere: if a constant has several values.
    """
    function = function_between(graph.definition(expr), source, graph)

    def values(x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(function(x), np.float32).reshape(-1)

    return values if values(np.zeros(1, np.float32)).size == 1 else None
