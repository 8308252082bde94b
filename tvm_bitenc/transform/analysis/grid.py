"""Which levels a float32 expression can have: found by looking at how it is computed.

A rounding, a sign or a cast makes integers; a clip, a constant or a sigmoid bounds them; what comes
behind maps them, level by level, by the graph's own float32 arithmetic. Where the levels so found
lie at equal distances, an `Encoding` stands for them, whoever spelt them and how.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from tvm import relax

from ...encoding import Encoding
from ...errors import UnsupportedError
from ...op.quantize import encoding_of, quantize_op
from ...op.registration import is_call_to
from ..rewrite import Graph
from .dag import once_per_variable, operands_of
from .float32 import MONOTONE, evaluate, op_name
from .unary import Unary, unaries

MAX_LEVELS = 256
MAX_OPS = 128  # On the way from levels to where they were rounded.
MAX_SIZE = 1 << 22  # Of all levels of all channels; a constant per element isn't looked at.
ROUNDING_OPS = ("relax.round", "relax.floor", "relax.ceil", "relax.trunc")
MOVING_OPS = ("relax.reshape", "relax.permute_dims", "relax.nn.max_pool2d", "relax.expand_dims")
# Ops that keep whole numbers whole, if their constants are.
WHOLE_OPS = tuple(
    f"relax.{name}" for name in ("clip", "maximum", "minimum", "nn.relu", "add", "subtract")
)
# Arithmetic rounds to 2^-24 of a result, and a few roundings lie between a code and its level.
TOLERANCE = 2.0**-22
_RANGES = {"relax.sigmoid": (0.0, 1.0), "relax.tanh": (-1.0, 1.0)}
Bounds = tuple[float, float]
Function = Callable[[np.ndarray], np.ndarray]


def grid_of(expr: relax.Expr, graph: Graph) -> tuple[Encoding, int] | None:
    """Encoding and channel axis of an expression whose levels lie at equal distances, else None.

    Quantizing the expression by it changes no level by more than float32 arithmetic rounds.
    """
    levels = levels_of(expr, graph)
    if levels is None:
        return None
    axes = [axis for axis, size in enumerate(levels.shape[1:]) if size > 1]
    if len(axes) > 1:
        return None
    encoding = fit(levels.reshape(len(levels), -1))
    if encoding is None:
        return None
    return encoding, axes[0] if axes else -1


def fit(levels: np.ndarray) -> Encoding | None:
    """Find the encoding whose levels are those given, within float32 rounding.

    Parameters
    ----------
    levels : ndarray of float32, shape (count, channels)
        Rising or falling with the first axis.

    Returns
    -------
    Encoding or None
        Per channel if there are several.
    """
    levels = np.sort(levels, axis=0)
    count, channels = levels.shape
    real = levels.astype(np.float64)
    step = (real[-1] - real[0]) / max(count - 1, 1)
    if not 2 <= count <= MAX_LEVELS or not np.isfinite(real).all() or np.any(step <= 0):
        return None
    zero_point = np.rint(-2 * real[0] / step) / 2 + 0.0  # Never -0.
    scale = _scale(real, zero_point)
    if channels == 1:
        scale, zero_point = scale[0], zero_point[0]
    try:
        encoding = Encoding((count - 1).bit_length(), scale, zero_point, max_code=count - 1)
    except UnsupportedError:
        return None
    codes = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None], levels.shape)
    error = np.abs(encoding.dequantize(codes, axis=1) - real).max(axis=0)
    close = np.all(error <= TOLERANCE * np.abs(real).max(axis=0))
    return encoding if close and np.array_equal(encoding.quantize(levels, axis=1), codes) else None


def _scale(levels: np.ndarray, zero_point: np.ndarray) -> np.ndarray:
    """Scale per channel that float32 arithmetic brings closest to the levels."""
    position = np.arange(len(levels))[:, None] - zero_point
    farthest = np.abs(position).argmax(axis=0)  # Has the smallest relative error.
    channels = np.arange(levels.shape[1])
    scale = (levels[farthest, channels] / position[farthest, channels]).astype(np.float32)
    near = np.stack([np.nextafter(scale, f) for f in (scale, np.float32(0), np.float32(np.inf))])
    made = position.astype(np.float32) * near[:, None]
    best = np.abs(made - levels).max(axis=1).argmin(axis=0)
    return near[best, channels]


def levels_of(expr: relax.Expr, graph: Graph) -> np.ndarray | None:
    """Levels of an expression, in the order of its integers; None behind more than `MAX_OPS` ops.

    Returns
    -------
    ndarray of float32 or None
        Shape (count, ...), the other axes those of the expression: 1 where a level is the same
        along an axis.
    """
    return _levels_of(expr, graph, iter(range(MAX_OPS)))


def _levels_of(expr: relax.Expr, graph: Graph, budget: Iterator[int]) -> np.ndarray | None:
    if next(budget, None) is None:
        return None
    expr = graph.definition(expr)
    rank = len(expr.ty.shape) if isinstance(expr.ty, relax.TensorType) and expr.ty.shape else 0
    if is_call_to(expr, quantize_op):
        return _levels_of_quantizer(expr, rank)
    integers = integers_of(expr, graph)
    if integers is not None:
        return np.float32(integers).reshape(-1, *[1] * rank)
    if op_name(expr) in MOVING_OPS:
        return _moved(expr, _levels_of(expr.args[0], graph, budget), rank)
    for step in _monotone(expr, graph):
        inner = _levels_of(step.argument, graph, budget)
        if inner is not None:
            return _mapped(step, inner, rank)
    return None


def _mapped(function: Function, levels: np.ndarray, rank: int) -> np.ndarray | None:
    """Levels behind an op of one variable, whose constants may have more axes."""
    with np.errstate(all="ignore"):
        levels = function(
            levels.reshape(len(levels), *[1] * (rank + 1 - levels.ndim), *levels.shape[1:])
        )
    return levels if levels.ndim == rank + 1 and levels.size <= MAX_SIZE else None


def _levels_of_quantizer(call: relax.Call, rank: int) -> np.ndarray | None:
    encoding = encoding_of(call)
    codes = encoding.distinct_levels[1][: encoding.max_code + 1].astype(np.uint8)
    codes = codes.reshape(-1, *[1] * rank)
    axis = int(call.attrs["axis"])
    return encoding.dequantize(codes, axis + 1 if axis >= 0 else 0)


def _moved(call: relax.Call, levels: np.ndarray | None, rank: int) -> np.ndarray | None:
    """Levels behind an op that moves elements about."""
    if levels is None:
        return None
    if levels.size == len(levels):
        return levels.reshape(-1, *[1] * rank)
    if op_name(call) == "relax.permute_dims":
        axes = call.attrs.axes
        axes = range(rank)[::-1] if axes is None else map(int, axes)
        return levels.transpose(0, *(axis + 1 for axis in axes))
    return levels if op_name(call) == "relax.nn.max_pool2d" else None


def integers_of(expr: relax.Expr, graph: Graph) -> np.ndarray | None:
    """Integers that an expression can be, rising; None if it can be others, or too many."""
    expr = graph.definition(expr)
    constant = evaluate(expr, graph)
    if constant is not None and constant.size > 1 and op_name(expr) == "relax.sign":
        return np.unique(constant)
    if not is_whole(expr, graph):
        return None
    bounds = bounds_of(expr, graph)
    if bounds is None or not all(map(math.isfinite, bounds)) or bounds[1] < bounds[0]:
        return None
    low, high = map(math.ceil, bounds)
    return np.arange(low, high + 1) if high - low < MAX_LEVELS else None


def _followed(expr: relax.Expr, graph: Graph) -> Sequence[relax.Expr]:
    """Arguments that say something about the numbers which an expression can be."""
    name = op_name(graph.definition(expr))
    is_followed = name in MONOTONE or name in MOVING_OPS or name == "relax.astype"
    return operands_of(expr, graph) if is_followed else ()


@once_per_variable(_followed)
def is_whole(expr: relax.Expr, graph: Graph) -> bool:
    """Whether an expression is always a whole number."""
    expr = graph.definition(expr)
    name = op_name(expr)
    if name in (*ROUNDING_OPS, "relax.sign"):
        return True
    if name == "relax.astype":
        return "int" in str(graph.definition(expr.args[0]).ty.dtype) or is_whole(
            expr.args[0], graph
        )
    if name in WHOLE_OPS:
        others = [_whole_constant(argument, graph) for argument in expr.args]
        unknown = [a for a, other in zip(expr.args, others) if other is None]
        return False not in others and len(unknown) == 1 and is_whole(unknown[0], graph)
    return name in MOVING_OPS and is_whole(expr.args[0], graph)


def _whole_constant(expr: relax.Expr, graph: Graph) -> bool | None:
    """Whether a lone constant is whole; None for anything else. Infinity bounds nothing."""
    value = evaluate(expr, graph)
    if value is None or np.size(value) != 1:
        return None
    return bool(np.isinf(value) or value == np.rint(value))


def bounds_of(expr: relax.Expr, graph: Graph) -> Bounds | None:
    """Smallest and largest number that an expression can be; infinite where nothing bounds it.

    A clip counts even where a constant doesn't fill it, so that its codes have the bits that the
    model asks for. None for what may be no number.
    """
    bounds = _bounds_by_ops(expr, graph)
    if bounds is not None and all(map(math.isfinite, bounds)):
        return bounds
    constant = evaluate(expr, graph)
    if constant is None or not np.size(constant):
        return bounds
    return float(np.min(constant)), float(np.max(constant))


@once_per_variable(_followed)
def _bounds_by_ops(expr: relax.Expr, graph: Graph) -> Bounds | None:
    """Bounds that hold whatever the constants at the beginning are."""
    expr = graph.definition(expr)
    name = op_name(expr)
    if name in _RANGES:
        return _RANGES[name]
    if is_call_to(expr, quantize_op):
        levels = _levels_of_quantizer(expr, 1)
        return None if levels is None else (float(levels.min()), float(levels.max()))
    if name in MOVING_OPS or name == "relax.astype":
        return _bounds_by_ops(expr.args[0], graph)
    step = next(iter(_monotone(expr, graph)), None)
    if step is None:
        return -math.inf, math.inf
    inner = _bounds_by_ops(step.argument, graph) or (-math.inf, math.inf)
    with np.errstate(all="ignore"):
        ends = np.array([step(np.float32(end)) for end in inner])
    # Each op never turns, so its ends come from ends.
    return None if np.isnan(ends).any() else (float(ends.min()), float(ends.max()))


def _monotone(expr: relax.Expr, graph: Graph) -> list[Unary]:
    """Readings of an op that keeps or reverses order; none of any other op."""
    return list(unaries(expr, graph)) if op_name(expr) in MONOTONE else []


def step_along(expr: relax.Expr, stop: relax.Expr, graph: Graph) -> Function | None:
    """Compose the function from `stop` to `expr`, if one op of one variable leads to the other."""
    functions: list[Function] = []
    while not graph.definition(expr).same_as(graph.definition(stop)):
        definition = graph.definition(expr)
        if len(functions) == MAX_OPS:
            return None
        if is_call_to(definition, quantize_op):
            function, expr = _grid_function(definition), definition.args[0]
        else:
            function = next(iter(_monotone(definition, graph)), None)
            expr = expr if function is None else function.argument
        if function is None:
            return None
        functions.insert(0, function)

    def composed(x: np.ndarray) -> np.ndarray:
        for function in functions:
            x = function(x)
        return x

    return composed


def _grid_function(call: relax.Call) -> Function | None:
    encoding = encoding_of(call)
    if encoding.is_per_channel:
        return None
    return lambda x: encoding.dequantize(encoding.quantize(x))
