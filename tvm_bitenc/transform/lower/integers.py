"""Sums that the graph takes as integers come from accumulators without floats between.

Before::

    acc = bitenc.branch_conv2d(codes, weight_codes, weight_offset)   # int32
    y = R.astype(R.multiply(R.astype(acc, "float32"), 0.25), "int32")

After::

    y = R.right_shift(acc, 2)

Every product of an accumulator is a multiple of 4, or of 2, where the zero points are codes. Floats
would round sums beyond 2^24.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from tvm import relax

from ...op.branch import branch_conv2d_op, branch_dense_op, geometry_of
from ...op.matmul import branch_matmul_op
from ...op.registration import constant_value, is_call_to, required_constant
from ..analysis.float32 import op_name
from ..analysis.shaping import RESHAPING
from ..rewrite import Graph

SHIFTS = {0.25: 2, 0.5: 1, 1.0: 0}


def integer_sums(call: relax.Call, graph: Graph) -> relax.Expr | None:
    """Return a cast of rescaled accumulators to int32 as a shift of them."""
    if op_name(call) != "relax.astype" or str(call.attrs.dtype) != "int32":
        return None
    expr, reshapes = graph.definition(call.args[0]), []
    while op_name(expr) in RESHAPING:
        reshapes.append(expr)
        expr = graph.definition(expr.args[0])
    factor = np.float32(1)
    if op_name(expr) == "relax.multiply":
        factor, expr = constant_value(expr.args[1]), graph.definition(expr.args[0])
    if op_name(expr) != "relax.astype" or factor is None or factor.size != 1:
        return None
    sums, shift = expr.args[0], SHIFTS.get(factor.item())
    if shift is None or 2**shift > _divisor(sums, graph):
        return None
    if shift:
        sums = graph.emit(relax.op.right_shift(sums, relax.const(shift, "int32")))
    for reshape in reversed(reshapes):
        sums = graph.emit(relax.Call(reshape.op, [sums, *reshape.args[1:]], reshape.attrs))
    return sums


def _divisor(sums: relax.Expr, graph: Graph) -> int:
    """A number that divides every accumulator; 0 for what is none."""
    call = graph.definition(sums)
    if op_name(call) == "relax.reshape":  # Of a product of matrices.
        call = graph.definition(call.args[0])
    if is_call_to(call, branch_matmul_op):
        offsets: list[ArrayLike] = [int(call.attrs[f"{x}_offset"]) for x in ("act", "weight")]
        planes = [call.attrs[f"{which}_coefficients"] for which in ("act", "weight")]
    elif is_call_to(call, branch_conv2d_op) or is_call_to(call, branch_dense_op):
        geometry = geometry_of(call)
        if not geometry.is_product:
            return 1
        offsets = [geometry.act_offset, required_constant(call.args[2])]
        planes = [geometry.act_coefficients, geometry.weight_coefficients]
    else:
        return 0
    # All bipolar values are odd, or all are even, as the sum of the coefficients is.
    return int(np.prod([_divisor_of(sum(map(int, p)), o) for p, o in zip(planes, offsets)]))


def _divisor_of(value: int, offset: ArrayLike) -> int:
    return 1 if np.any((value + np.asarray(offset)) % 2) else 2
