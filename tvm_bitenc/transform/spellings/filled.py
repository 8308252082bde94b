"""Tensors of one number, as `torch.full_like` makes them, in place of the number."""

from __future__ import annotations

import tvm_ffi
from tvm import relax

from ..analysis.float32 import op_name
from ..rewrite import Graph

BROADCASTING = ("where", "add", "subtract", "multiply", "divide", "maximum", "minimum")


def filled_operand(call: relax.Call, graph: Graph) -> relax.Expr | None:
    """``where(c, full(shape, a), x)`` is ``where(c, a, x)``; so for other ops that broadcast."""
    if op_name(call).removeprefix("relax.") not in BROADCASTING:
        return None
    definitions = [graph.definition(argument) for argument in call.args]
    is_filled = [op_name(definition) == "relax.full" for definition in definitions]
    shapes = [argument.ty.shape for argument, full in zip(call.args, is_filled) if not full]
    if not any(is_filled) or not any(_equal(shape, call.ty.shape) for shape in shapes):
        return None
    arguments = [
        definition.args[1] if full else argument
        for argument, definition, full in zip(call.args, definitions, is_filled)
    ]
    return relax.Call(call.op, arguments, call.attrs)


def _equal(a: relax.Expr | None, b: relax.Expr | None) -> bool:
    return a is not None and b is not None and bool(tvm_ffi.structural_equal(a, b))
