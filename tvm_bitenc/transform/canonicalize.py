"""Every spelling of a quantizer becomes one `bitenc.quantize`.

Before::

    lv = R.divide(x, scale); lv1 = R.round(lv)
    lv2 = R.clip(lv1, 0, 3); lv3 = R.multiply(lv2, scale)

After::

    lv3 = bitenc.quantize(x, scale, zero_point)  # bits=2

A new spelling is one function, registered with `quantizer_spelling`::

    @quantizer_spelling
    def heaviside(call, graph):
        if op_name(call) == "relax.where": ...
            return quantize(x, encoding)

What a layer reads may be spelt in ways that no function knows. Its arithmetic stays then, and a
quantizer goes behind it, if the levels that it makes are found to lie at equal distances.

Before::

    lv = R.clip(x, 0, 1); lv1 = R.multiply(lv, 15)
    lv2 = R.round(lv1); lv3 = R.divide(lv2, 15)
    lv4 = R.nn.conv2d(lv3, w)

After::

    lv = R.clip(x, 0, 1); lv1 = R.multiply(lv, 15)
    lv2 = R.round(lv1); lv3 = R.divide(lv2, 15)
    lv4 = bitenc.quantize(lv3, 1/15, 0)  # bits=4
    lv5 = R.nn.conv2d(lv4, w)

A sum of steps, and whatever else is constant piece by piece, is a quantizer with levels and bounds
of its own.

Before::

    lv = R.greater(x, -0.5); lv1 = R.multiply(R.astype(lv, "float32"), 0.75)
    lv2 = R.greater(x, 0.25); lv3 = R.multiply(R.astype(lv2, "float32"), 1.5)
    lv4 = R.nn.conv2d(R.add(lv1, lv3), w)

After::

    lv = bitenc.quantize(x, 0.75, 0)  # codes=[0, 1, 3], bounds=[-0.5, 0.25]
    lv1 = R.nn.conv2d(lv, w)

Constant weights of few values that lie on a grid, such as ``alpha * sign(w)`` out of a checkpoint,
are quantized weights as well: `analysis/values.py` finds their encoding.

Codes are exact in all. The second and third kind may move a level by its last bits, as in 7/15
against 7 * (1/15): less than the float convolution rounds itself. `fold` turns the arithmetic into
thresholds.
"""

from __future__ import annotations

import tvm
from tvm import relax

from ..op.quantize import quantize, quantize_op
from ..op.registration import is_call_to, with_attributes
from .analysis.dag import once_per_variable
from .analysis.float32 import evaluate, op_name
from .analysis.grid import grid_of
from .analysis.pieces import encoding_by_steps
from .analysis.shaping import MOVING, constant_pad, on_sources, sources, unquantized_sources
from .analysis.values import encoding_of_values
from .lower import is_layer, reason_for_float
from .lower.reasons import NO_QUANTIZER, out_axis
from .rewrite import Graph, Rule, rewrite_calls
from .spellings import SPELLINGS

BY_VALUE = "values"  # Of the attribute `origin`, which other quantizers don't have.
_spellings: list[Rule] = [*SPELLINGS]


def quantizer_spelling(function: Rule) -> Rule:
    """Register a function from the last call of a spelling to `bitenc.quantize`, or None.

    It gets ``(call, graph)``; ``graph.definition`` looks back. What it returns must compute the
    same float32 numbers as what it replaces. It is asked before the functions of the package.
    """
    _spellings.insert(0, function)
    return function


@tvm.transform.module_pass(opt_level=0, name="bitenc.Canonicalize")
class Canonicalize:
    """Recognise quantizers; spell batch-norm and tuples out so that later passes see arithmetic."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        mod = relax.transform.DecomposeOpsForInference()(mod)
        mod = relax.transform.CanonicalizeBindings()(mod)
        mod = rewrite_calls(mod, _first_spelling)
        return rewrite_calls(mod, _quantized_operands)


def _first_spelling(call: relax.Call, graph: Graph) -> relax.Expr | None:
    return next((found for spell in _spellings if (found := spell(call, graph)) is not None), None)


def _quantized_operands(call: relax.Call, graph: Graph) -> relax.Expr | None:
    """Put quantizers behind what a layer reads, and the layer's name into that of its weight."""
    if not is_layer(call) or len(call.args) != 2:
        return None
    operands = [_quantized(operand, graph) for operand in call.args]
    operands[1] = _quantized_by_value(call, operands, graph)
    operands[1] = _named(operands[1], graph.name, graph)
    if all(new.same_as(old) for new, old in zip(operands, call.args)):
        return None
    return relax.Call(call.op, operands, call.attrs)


@once_per_variable(unquantized_sources, keep=lambda _operand: False)
def _quantized(operand: relax.Expr, graph: Graph) -> relax.Expr:
    """Put a quantizer behind each tensor that an operand's values come from."""
    expr = graph.definition(operand)
    if is_call_to(expr, quantize_op):
        return operand
    parts = sources(expr, graph)
    if parts is not None:
        quantized = [_quantized(part, graph) for part in parts]
        if all(new.same_as(old) for new, old in zip(quantized, parts)):
            return operand
        return graph.emit(on_sources(expr, quantized, constant_pad(expr) or 0.0))
    found = grid_of(operand, graph)
    if found is None or found[0].bits == 1:
        by_steps = encoding_by_steps(operand, graph)
        if by_steps is not None:
            return graph.emit(quantize(*by_steps, layer=graph.name))
    if found is None:
        return operand
    encoding, axis = found
    return graph.emit(quantize(operand, encoding, axis, graph.name))


def _quantized_by_value(call: relax.Call, operands: list[relax.Expr], graph: Graph) -> relax.Expr:
    """Return a layer's weight, quantized if its values are those of a quantized one."""
    weight, axis = operands[1], out_axis(call)
    layer = relax.Call(call.op, operands, call.attrs)
    if axis is None or reason_for_float(layer, graph) != NO_QUANTIZER:
        return weight
    values = evaluate(weight, graph)
    encoding = None if values is None else encoding_of_values(values, axis)
    if encoding is None:
        return weight
    quantizer = quantize(weight, encoding, axis if encoding.is_per_channel else -1, graph.name)
    return graph.emit(with_attributes(quantizer, origin=BY_VALUE))


def _named(operand: relax.Expr, name: str, graph: Graph) -> relax.Expr:
    """Give a weight's quantizer a layer's name, if it has none."""
    moves, expr = [], graph.definition(operand)
    while op_name(expr) in MOVING:
        moves.append(expr)
        expr = graph.definition(expr.args[0])
    if not is_call_to(expr, quantize_op) or not name or str(expr.attrs["layer"]):
        return operand
    named = graph.emit(with_attributes(expr, layer=name))
    for move in reversed(moves):
        named = graph.emit(relax.Call(move.op, [named, *move.args[1:]], move.attrs))
    return named
