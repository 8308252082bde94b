"""What a straight-through gradient leaves behind in the forward pass: x + (q - x)."""

from __future__ import annotations

import numpy as np
from tvm import relax

from ..analysis.float32 import evaluate, op_name
from ..analysis.grid import ROUNDING_OPS, Function, bounds_of, levels_of, step_along
from ..analysis.pieces import pieces_of
from ..fuse_encode import float_thresholds
from ..rewrite import Graph


def straight_through(call: relax.Call, graph: Graph) -> relax.Expr | None:
    """``x + (q - x)`` is q where float32 doesn't round it: proven, or left as it is.

    - q is x rounded to a whole number. Then |q - x| < 1, so it is rounded to a quarter of the last
      place of q at most, and the sum to q itself.
    - x is a constant. Then both are known.
    - x is bounded, and every level of q is close to all x that it stands for.

    Infinity isn't looked at: its difference is no number.
    """
    found = _residue(call, graph)
    if found is None:
        return None
    x, quantized = found
    rounding = graph.definition(quantized)
    if op_name(rounding) in ROUNDING_OPS and _same(rounding.args[0], x, graph):
        return quantized
    constant = evaluate(x, graph)
    if constant is not None:
        levels = evaluate(quantized, graph)
        exact = levels is not None and np.array_equal(constant + (levels - constant), levels)
        return quantized if exact else None
    return quantized if _is_close(x, quantized, graph) else None


def _residue(call: relax.Expr, graph: Graph) -> tuple[relax.Expr, relax.Expr] | None:
    """(x, q) of ``x + (q - x)`` in either order."""
    if op_name(call) != "relax.add":
        return None
    for x, other in (call.args, reversed(call.args)):
        difference = graph.definition(other)
        if op_name(difference) == "relax.subtract" and _same(difference.args[1], x, graph):
            return x, difference.args[0]
    return None


def has_residue(expr: relax.Expr, graph: Graph) -> bool:
    """Whether an expression is such a sum that wasn't proven exact."""
    return _residue(graph.definition(expr), graph) is not None


def _same(a: relax.Expr, b: relax.Expr, graph: Graph) -> bool:
    return graph.definition(a).same_as(graph.definition(b))


def _is_close(x: relax.Expr, quantized: relax.Expr, graph: Graph) -> bool:
    """Whether q - x is so much smaller than q that its rounding can't move the sum off q.

    That is, |q - x| < 2^e for every level 2^e <= |q| < 2^(e+1): then the difference is rounded by a
    quarter of q's last place at most. For q = 0 the sum is exact. Of a sum of steps the levels, and
    which numbers get them, are known as they are; of others by their rounding.
    """
    bounds, levels = bounds_of(x, graph), levels_of(quantized, graph)
    if bounds is None or not np.isfinite(bounds).all():
        return False
    low, high = np.array(bounds, np.float32)
    for pieces in pieces_of(quantized, graph):
        if _same(pieces.source, x, graph):
            return _all_survive(pieces.levels, pieces.bounds, low, high)
    function = step_along(quantized, x, graph)
    if levels is None or function is None or levels.size != len(levels):
        return False
    levels = np.sort(levels.reshape(-1))

    def codes_of(values: np.ndarray) -> np.ndarray:
        found = function(np.clip(np.nan_to_num(values), low, high))
        return np.searchsorted(levels, found)

    first = float_thresholds(codes_of, len(levels) - 1)
    return _all_survive(levels, first, low, high) and _rises(function, low, high, levels)


def _all_survive(levels: np.ndarray, first: np.ndarray, low: np.float32, high: np.float32) -> bool:
    """Whether all levels do that numbers of a range get, where `first` are the least of each."""
    starts = np.concatenate([[low], first])
    ends = np.concatenate([np.nextafter(first, np.float32(-np.inf)), [high]])
    ends = np.where(np.isfinite(ends), np.minimum(ends, high), high)
    reachable = np.isfinite(starts) & (starts <= high) & (ends >= low)
    starts = np.maximum(starts, low)
    return all(
        _survives(np.float64(level), start, end)
        for level, start, end, reached in zip(levels, starts, ends, reachable)
        if reached
    )


def _survives(level: np.float64, start: np.float32, end: np.float32) -> bool:
    if level == 0:
        return True
    farthest = max(abs(level - np.float64(x)) for x in (start, end))
    return farthest < 2.0 ** np.floor(np.log2(abs(level)))


def _rises(function: Function, low: np.float32, high: np.float32, levels: np.ndarray) -> bool:
    """Whether the ends of the range get the outermost levels, and not in reverse."""
    first, last = function(np.array([low, high], np.float32))
    return first <= last and first in levels and last in levels
