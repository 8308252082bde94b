"""Pass 1: every spelling of a quantizer becomes one `bitenc.quantize`.

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
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from ..encoding import Encoding
from ..errors import UnsupportedError
from ..op.quantize import quantize
from .float32 import evaluate, op_name
from .rewrite import Graph, Rule, rewrite_calls

_spellings: list[Rule] = []


def quantizer_spelling(function: Rule) -> Rule:
    """Register a function from the last call of a spelling to `bitenc.quantize`, or None.

    It gets ``(call, graph)``; ``graph.definition`` looks back. What it returns must compute the
    same float32 numbers as what it replaces.
    """
    _spellings.append(function)
    return function


@tvm.transform.module_pass(opt_level=0, name="bitenc.Canonicalize")
class Canonicalize:
    """Recognise quantizers; spell batch-norm and tuples out so that later passes see arithmetic."""

    def transform_module(self, mod: tvm.IRModule, _ctx) -> tvm.IRModule:
        """Rewrite the module."""
        mod = relax.transform.DecomposeOpsForInference()(mod)
        mod = relax.transform.CanonicalizeBindings()(mod)
        return rewrite_calls(mod, _first_spelling)


def _first_spelling(call: relax.Call, graph: Graph) -> relax.Expr | None:
    return next((found for spell in _spellings if (found := spell(call, graph)) is not None), None)


@quantizer_spelling
def divide_round_clip_multiply(call: relax.Call, graph: Graph) -> relax.Expr | None:
    """``(clip(round(x / s + z), 0, 2^b - 1) - z) * s``, with or without the two z."""
    scaled = _with_constant(call, "relax.multiply", graph)
    if scaled is None:
        return None
    inner, scale = scaled
    shifted = _with_constant(inner, "relax.subtract", graph)
    clipped, zero_point = shifted or (inner, np.float32(0))
    if op_name(clipped) != "relax.clip":
        return None
    low, high = (evaluate(bound, graph) for bound in clipped.args[1:])
    rounded = graph.definition(clipped.args[0])
    if op_name(rounded) != "relax.round" or low is None or high is None:
        return None
    position = graph.definition(rounded.args[0])
    added = _with_constant(position, "relax.add", graph)
    position, added_zero = added or (position, np.float32(0))
    divided = _with_constant(position, "relax.divide", graph, constant_last=True)
    bits = int(np.log2(float(high) + 1)) if high >= 1 else 0
    if divided is None or low != 0 or 2**bits - 1 != high or not 1 <= bits <= 8:
        return None
    if scale.size != 1 or not np.array_equal(divided[1], scale):
        return None
    if zero_point.size != 1 or not np.array_equal(added_zero, zero_point):
        return None
    try:
        encoding = Encoding(bits, scale.reshape(()), zero_point.reshape(()))
    except UnsupportedError:
        return None  # The arithmetic has a meaning all the same, so it stays float.
    return quantize(position.args[0], encoding)


def _with_constant(expr, name: str, graph: Graph, constant_last: bool = False):
    """Split a call of two arguments into the definition of one and the value of the other.

    With `constant_last` the division itself is returned, for its first argument.
    """
    if op_name(expr) != name:
        return None
    constant = evaluate(expr.args[1], graph)
    if constant is not None:
        return (expr if constant_last else graph.definition(expr.args[0])), constant
    constant = evaluate(expr.args[0], graph)
    if constant is None or name in ("relax.subtract", "relax.divide"):
        return None
    return graph.definition(expr.args[1]), constant
