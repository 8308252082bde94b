"""Why a layer stays float, in the words of the model, and what to change."""

from __future__ import annotations

import math

import numpy as np
from tvm import relax

from ..errors import UnsupportedError
from ..op.quantize import quantize_op
from ..op.registration import is_call_to
from ..transform.analysis.float32 import evaluate, op_name
from ..transform.analysis.grid import MAX_LEVELS, ROUNDING_OPS, bounds_of, is_whole, levels_of
from ..transform.analysis.pieces import few_numbers, pieces_of
from ..transform.analysis.shaping import sources
from ..transform.analysis.values import multiples_of
from ..transform.lower.operands import quantized_sources
from ..transform.rewrite import Graph
from ..transform.spellings.straight_through import has_residue

MAX_FEW = 32  # Values that a quantizer of unequal steps makes.
QUANTIZE = "tvm_bitenc.nn, torch.fake_quantize_*, or tvm_bitenc.quantize for a trained model"
_CURES = {
    "no branch form": "Replace it by a 2-d convolution or a matrix product",
    "layout": "Convert the model to that layout",
    "vector": "Give both operands two axes or more",
    "different encodings": "Give these tensors one scale and one range, or quantize behind it",
    "is padded with": "Pad with 0 or another level, or in front of the quantizer",
}


def diagnose(call: relax.Call, graph: Graph, reason: str) -> tuple[str, str]:
    """Return the reason in more detail, and a cure, for a layer that stays float."""
    if reason.endswith("isn't quantized"):
        operand = 0 if reason.startswith("its input") else 1
        detail, cure = _why_not_quantized(call.args[operand], graph)
        return f"{reason}: {detail}", cure
    return reason, next((cure for key, cure in _CURES.items() if key in reason), "")


def _why_not_quantized(operand: relax.Expr, graph: Graph) -> tuple[str, str]:
    source = graph.definition(operand)
    while parts := sources(source, graph):
        without = [part for part in parts if quantized_sources(part, graph)[1]]
        source = graph.definition((without or parts)[0])
    if has_residue(source, graph):
        return (
            "x + (q - x) isn't q in float32 where x lies beyond the range",
            "Clip x to that range first, or return q alone in eval mode",
        )
    try:
        for pieces in pieces_of(source, graph):
            pieces.encoding()
    except UnsupportedError as error:
        return error.cause, error.cure
    values = evaluate(source, graph)
    if values is not None and _is_uneven(values):
        return (
            f"its values {few_numbers(np.unique(values))} aren't whole multiples of one number",
            "Train coefficients as integers of 8 bits times a scale",
        )
    path = _path_to_rounding(source, graph)
    if path:
        return _why_no_grid(source, path, graph)
    if isinstance(source, relax.Var):
        return "it is an input of the network", f"Quantize it first: {QUANTIZE}"
    if values is not None:
        return "its values are floats on no grid of 256 levels", f"Quantize them: {QUANTIZE}"
    return f"it comes from {_plain(op_name(source))}", f"Put a quantizer between: {QUANTIZE}"


def _is_uneven(values: np.ndarray) -> bool:
    """Whether a constant has a few values, but at distances that no scale makes integers of."""
    found = np.unique(values.astype(np.float64))
    return len(found) <= MAX_FEW and multiples_of(found) is None


def _why_no_grid(source: relax.Expr, path: list[relax.Expr], graph: Graph) -> tuple[str, str]:
    """Say why numbers that were rounded somewhere make no codes."""
    levels = levels_of(source, graph)
    if levels is not None:
        return (
            "its levels lie at unequal distances, or a channel's scale is zero",
            "Use one positive scale per tensor, or per output channel of a weight",
        )
    any_bounds = [bounds_of(expr, graph) for expr in path if is_whole(expr, graph)]
    bounds = [found for found in any_bounds if found and all(map(math.isfinite, found))]
    if not bounds and is_call_to(graph.definition(path[-1]), quantize_op):
        return "it is computed from quantized tensors", f"Quantize the result as well: {QUANTIZE}"
    if not bounds:
        return "it is rounded, but nothing bounds it", "Clamp it to the smallest and largest code"
    count = int(min(high - low for low, high in bounds)) + 1
    if count > MAX_LEVELS:
        return f"it has {count} levels", "Quantize it to 8 bits or fewer"
    return "its scale isn't constant", "Keep the scale as a parameter or buffer of the model"


def _path_to_rounding(expr: relax.Expr, graph: Graph, depth: int = 16) -> list[relax.Expr]:
    """Expressions from one back to the rounding that its values come from; empty if none."""
    expr = graph.definition(expr)
    if op_name(expr) in ROUNDING_OPS or is_call_to(expr, quantize_op):
        return [expr]
    if depth == 0 or op_name(expr) not in _ARITHMETIC:
        return []
    paths = (_path_to_rounding(argument, graph, depth - 1) for argument in expr.args)
    found = next((path for path in paths if path), None)
    return [expr, *found] if found else []


_ARITHMETIC = tuple(
    f"relax.{name}" for name in ("add", "subtract", "multiply", "divide", "clip", "negative")
)


def _plain(name: str) -> str:
    return name.split(".")[-1] or "a tuple"
