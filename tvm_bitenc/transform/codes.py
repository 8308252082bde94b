"""Codes travel between layers where floats did: residual adds of quantized tensors.

Before::

    q = bitenc.quantize(x, s, z); q1 = bitenc.quantize(x1, s1, z1)
    y = R.nn.relu(R.add(q, q1))
    codes = bitenc.encode(y, s2, z2)

After::

    a = bitenc.encode(x, s, z); b = bitenc.encode(x1, s1, z1)
    codes = bitenc.lookup(a, b, table)   # table[a, b], by the graph's own float32 function

The table has an entry for each pair of codes, so it is exact by construction. The encoders of a and
b may then become thresholds like any others. Where a quantizer's floats are needed beside its
codes, as in an add with a tensor that isn't quantized, they are made from the codes::

    q = bitenc.decode(a, s, z)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from ..encoding import Encoding
from ..op.decode import decode, decode_op
from ..op.lookup import lookup
from ..op.quantize import encode_op, encoding_of, quantize_op
from ..op.registration import is_call_to
from .analysis.dag import in_order, operands_of
from .analysis.float32 import evaluate, function_of, is_constant, op_name
from .analysis.steps import trace
from .lower import encoder_of
from .rewrite import Graph, merge_equal, rewrite_calls
from .visit import visit_calls

MAX_OPS = 64  # Of a table's function.
MAX_BITS = 4  # Of each tensor: beyond, float arithmetic is faster than so many bit operations.


@tvm.transform.module_pass(opt_level=0, name="bitenc.Codes")
class Codes:
    """Replace float arithmetic between quantizers and encoders by tables."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        encoded: set[tuple] = set()

        def note(call: relax.Call, _graph: Graph) -> None:
            if is_call_to(call, encode_op):
                encoded.add(_key(call))

        visit_calls(mod, note)
        mod = rewrite_calls(mod, lambda call, graph: _rewrite(call, graph, encoded))
        return merge_equal(mod)


def _key(call: relax.Call) -> tuple:
    """Tell apart what encoders and quantizers read, and how they round."""
    encoding = encoding_of(call)
    numbers = encoding.scale.tobytes(), encoding.zero_point.tobytes()
    grid = encoding.bits, encoding.max_code, encoding.rounding, encoding.late_zero_point
    levels = encoding.coefficients, encoding.codes, encoding.bounds
    return call.args[0], *grid, *levels, *numbers


def _rewrite(call: relax.Call, graph: Graph, encoded: set[tuple]) -> relax.Expr | None:
    if is_call_to(call, encode_op):
        return _looked_up(call, graph, encoded)
    if not is_call_to(call, quantize_op) or not _has_plain_codes(encoding_of(call)):
        return None
    encoder = encoder_of(call)
    codes = _looked_up(graph.typed(encoder), graph, encoded)
    if codes is None:
        # The arithmetic before it then ends in codes alone, which become thresholds.
        is_shared = _key(encoder) in encoded and trace(call.args[0], graph) is not None
        codes = encoder if is_shared else None
    return None if codes is None else decode(graph.emit(codes), encoding_of(encoder))


def _has_plain_codes(encoding: Encoding) -> bool:
    return encoding.is_positional and encoding.scale.size == encoding.zero_point.size == 1


def _looked_up(call: relax.Call, graph: Graph, encoded: set[tuple]) -> relax.Expr | None:
    """Codes of an encoder by a table, None if it has none or gains nothing from it."""
    encoding = encoding_of(call)
    if not _has_plain_codes(encoding) or encoding.bits > MAX_BITS:
        return None
    leaves: dict[relax.Var, relax.Call] = {}
    function = _function(call.args[0], graph, leaves)
    if function is None or not _are_worth_it(leaves, encoded):
        return None
    encodings = [encoding_of(quantizer) for quantizer in leaves.values()]
    levels = [e.dequantize(np.arange(2**e.bits)).reshape(-1) for e in encodings]
    grid = dict(zip(leaves, np.meshgrid(*levels, indexing="ij")))
    with np.errstate(all="ignore"):
        values = np.float32(function(grid))
    if np.isnan(values).any():
        return None
    table = encoding.quantize(values).reshape([level.size for level in levels])
    if any(np.any(np.diff(table.astype(int), axis=axis) < 0) for axis in range(table.ndim)):
        return None
    return _emitted(table, encoding.bits, list(leaves.values()), graph, encoded)


def _are_worth_it(leaves: dict[relax.Var, relax.Call], encoded: set[tuple]) -> bool:
    """Two tensors of one shape; or one, if its codes are needed anyway."""
    calls = list(leaves.values())
    if len(calls) == 1:
        return is_call_to(calls[0], decode_op) or _key(calls[0]) in encoded
    shapes = [call.ty.shape for call in calls]
    return len(calls) == 2 and tvm_ffi.structural_equal(*shapes)


def _emitted(
    table: np.ndarray, bits: int, leaves: list, graph: Graph, encoded: set[tuple]
) -> relax.Expr:
    codes = [_codes(leaf, graph, encoded) for leaf in leaves]
    if table.ndim == 1 and np.array_equal(table, np.arange(table.size)):
        return codes[0]
    return lookup(codes, table, bits)


def _codes(leaf: relax.Call, graph: Graph, encoded: set[tuple]) -> relax.Expr:
    """Codes of a quantized tensor."""
    if is_call_to(leaf, decode_op):
        return leaf.args[0]
    encoder = graph.typed(encoder_of(leaf))
    found = _looked_up(encoder, graph, encoded)
    return graph.emit(encoder if found is None else found)


def _function(
    expr: relax.Expr, graph: Graph, leaves: dict[relax.Var, relax.Call]
) -> Callable[[dict], np.ndarray] | None:
    """Return an expression as a function of the quantized tensors behind it, added to `leaves`.

    None where it isn't one function for all elements, or one of more than `MAX_OPS` ops.
    """
    opened: list[relax.Expr] = []

    def operands(var: relax.Expr, graph: Graph) -> Sequence[relax.Expr]:
        opened.append(var)
        return _arithmetic(var, graph) if len(opened) <= MAX_OPS else ()

    steps: dict[relax.Expr, Callable[[dict], np.ndarray]] = {}
    for var in in_order(expr, graph, operands, steps):
        step = _step(var, graph, leaves) if len(opened) <= MAX_OPS else None
        if step is None or len(leaves) > 2:
            return None
        steps[var] = step

    def function(levels: dict) -> np.ndarray:
        values = dict(levels)
        for var, step in steps.items():
            values[var] = step(values)
        return values[expr]

    return function


def _arithmetic(expr: relax.Expr, graph: Graph) -> Sequence[relax.Expr]:
    """Operands of an elementwise op that reads tensors, up to the quantizers."""
    call = graph.definition(expr)
    is_leaf = any(is_call_to(call, op) for op in (quantize_op, decode_op))
    if is_leaf or is_constant(expr, graph) or not op_name(call) or function_of(call) is None:
        return ()
    return operands_of(expr, graph)


def _step(var: relax.Var, graph: Graph, leaves: dict) -> Callable[[dict], np.ndarray] | None:
    """Return the function from the values of a variable's operands to its own."""
    value = evaluate(var, graph)
    if value is not None:
        return (lambda _values: value) if value.size == 1 else None
    call = graph.definition(var)
    if is_call_to(call, quantize_op) or is_call_to(call, decode_op):
        encoding = encoding_of(call)
        if not _has_plain_codes(encoding) or encoding.bits > MAX_BITS:
            return None
        leaves[var] = call
        return lambda levels: levels[var]
    function = function_of(call) if op_name(call) else None
    if function is None:
        return None
    values_of = ((i, evaluate(argument, graph)) for i, argument in enumerate(call.args))
    constants = {i: value for i, value in values_of if value is not None}
    if any(value.size != 1 for value in constants.values()):
        return None
    arguments = list(call.args)
    return lambda values: function(
        *(constants[i] if i in constants else values[a] for i, a in enumerate(arguments))
    )
