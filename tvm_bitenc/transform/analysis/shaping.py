"""Shaping ops: they move values or choose among them without computing, so they act on codes too.

`sources` says where the values of such an op come from, and `on_sources` calls it on others: on
the codes of its values (`lower`), or on values that arithmetic has been moved in front of
(`push_quantizers`).
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import relax

from ...op.interleave import interleave_op
from ...op.quantize import quantize_op
from ...op.registration import is_call_to
from ..rewrite import Graph
from .float32 import op_name

# Of one tensor, whatever its values are.
MOVING = (
    "relax.reshape",
    "relax.flatten",
    "relax.expand_dims",
    "relax.squeeze",
    "relax.permute_dims",
    "relax.strided_slice",
    "relax.take",
    "relax.flip",
    "relax.tile",
    "relax.repeat",
    "relax.broadcast_to",
)
# They pick the largest value: what stands for the values must keep their order.
CHOOSING = ("relax.nn.max_pool1d", "relax.nn.max_pool2d", "relax.max")
# All that can be told by name, and has its tensor as first argument.
SHAPING = (*MOVING, *CHOOSING)
# They say nothing about values, only where one axis ends and the next begins.
RESHAPING = ("relax.reshape", "relax.flatten", "relax.expand_dims", "relax.squeeze")

PAD = "relax.nn.pad"


def sources(call: relax.Expr, graph: Graph) -> list[relax.Expr] | None:
    """Tensors that the values of a shaping op come from; None for any other expression."""
    name = op_name(call)
    if name in SHAPING or name == PAD or is_nearest(call):
        return [call.args[0]]
    if is_call_to(call, interleave_op):
        return list(call.args)
    if name == "relax.concat":
        parts = graph.definition(call.args[0])
        return list(parts.fields) if isinstance(parts, relax.Tuple) else None
    return None


def unquantized_sources(expr: relax.Expr, graph: Graph) -> list[relax.Expr]:
    """Tensors that the values of a shaping op come from; none for a quantizer or any other op."""
    definition = graph.definition(expr)
    return [] if is_call_to(definition, quantize_op) else sources(definition, graph) or []


def on_sources(
    call: relax.Call, tensors: Sequence[relax.Expr], pad_value: float = 0.0
) -> relax.Call:
    """Return a shaping op on other tensors.

    Parameters
    ----------
    call : relax.Call
    tensors : sequence of relax.Expr
        One for each of `sources`.
    pad_value : float
        What padding is made of, in place of the call's own value.
    """
    if op_name(call) == PAD:
        widths = [int(width) for width in call.attrs.pad_width]
        return relax.op.nn.pad(tensors[0], widths, str(call.attrs.pad_mode), float(pad_value))
    if is_call_to(call, interleave_op):
        return relax.Call(call.op, list(tensors), call.attrs)
    first = relax.Tuple(list(tensors)) if op_name(call) == "relax.concat" else tensors[0]
    return relax.Call(call.op, [first, *call.args[1:]], call.attrs)


def is_nearest(call: relax.Expr) -> bool:
    """Whether an expression resizes an image by copying pixels."""
    return op_name(call) == "relax.image.resize2d" and call.attrs.method == "nearest_neighbor"


def constant_pad(call: relax.Expr) -> float | None:
    """Value that an op pads with; None for any other op, and for padding with copies."""
    is_constant = op_name(call) == PAD and str(call.attrs.pad_mode) == "constant"
    return float(call.attrs.pad_value) if is_constant else None


def pad_widths(call: relax.Call) -> list[tuple[int, int]]:
    """(before, after) of each axis that a padding op adds; negative where it takes away."""
    widths = [int(width) for width in call.attrs.pad_width]
    return list(zip(widths[::2], widths[1::2]))
