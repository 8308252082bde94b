"""Every branch sum written out, one 1-bit op per pair of planes.

Before::

    acc = bitenc.branch_conv2d(codes, w, o)  # 2-bit activations, 1-bit weights

After::

    a0 = (codes >> 0) & 1; a1 = (codes >> 1) & 1
    acc = constant + bitenc.branch_conv2d(a0, w) * 1 + bitenc.branch_conv2d(a1, w) * 2

This is the paper's equation as a pass: an oracle, as every op that is left sums one branch. The
compiler keeps each sum in one op, because W8A8 has 64 branches.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from tvm_bitenc.branches import BranchGeometry
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.op.branch import (
    branch_conv2d,
    branch_conv2d_op,
    branch_dense,
    branch_dense_op,
    geometry_of,
)
from tvm_bitenc.op.registration import constant_value, is_call_to
from tvm_bitenc.reference import conv2d, dense
from tvm_bitenc.transform.rewrite import Graph, rewrite_calls

SIGN = Encoding.symmetric(1)


@tvm.transform.module_pass(opt_level=0, name="bitenc.ExpandBranches")
class ExpandBranches:
    """Replace each branch op by the sum of its 1-bit branches."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        return rewrite_calls(mod, _expand)


def _expand(call: relax.Call, graph: Graph) -> relax.Expr | None:
    if not (is_call_to(call, branch_conv2d_op) or is_call_to(call, branch_dense_op)):
        return None
    geometry, weight_codes = geometry_of(call), constant_value(call.args[1])
    offset = constant_value(call.args[2])
    if not np.any(offset) and geometry.act_offset == 0 and _is_one_branch(geometry):
        return None
    act_planes = [
        graph.emit(_plane(call.args[0], k)) for k in range(len(geometry.act_coefficients))
    ]
    terms = []
    columns = zip(*geometry.branch_matrix)
    for kappa_a, act_plane, column in zip(geometry.act_coefficients, act_planes, columns):
        for m, factor in enumerate(column):
            weight_plane = (weight_codes >> m) & 1
            terms.append((factor, _branch(call, act_plane, weight_plane)))
        if np.any(offset):  # o_w times the sum of v_a: a branch whose weights are all +1.
            scaled = (kappa_a * offset).reshape(-1, *[1] * (weight_codes.ndim - 2))
            terms.append((scaled, _branch(call, act_plane, np.ones_like(weight_codes))))
    total = relax.const(_constant(call, geometry, weight_codes, offset), "int32")
    for coefficient, term in terms:
        factor = relax.const(np.asarray(coefficient, "int32"), "int32")
        product = graph.emit(relax.op.multiply(graph.emit(term), factor))
        total = graph.emit(relax.op.add(total, product))
    return total


def _is_one_branch(geometry: BranchGeometry) -> bool:
    return geometry.act_coefficients == geometry.weight_coefficients == (1,)


def _plane(codes: relax.Expr, bit: int) -> relax.Expr:
    shift, one = (relax.const(np.uint8(value), "uint8") for value in (bit, 1))
    return relax.op.bitwise_and(relax.op.right_shift(codes, shift), one)


def _branch(call: relax.Call, act_plane: relax.Expr, weight_plane: np.ndarray) -> relax.Call:
    layer = str(call.attrs["layer"])
    if is_call_to(call, branch_dense_op):
        return branch_dense(act_plane, SIGN, weight_plane, SIGN, layer=layer)
    geometry = geometry_of(call)
    return branch_conv2d(
        act_plane,
        SIGN,
        weight_plane,
        SIGN,
        strides=geometry.strides,
        padding=geometry.padding,
        dilation=geometry.dilation,
        groups=geometry.groups,
        layer=layer,
    )


def _constant(
    call: relax.Call, geometry: BranchGeometry, weight_codes: np.ndarray, offset: np.ndarray
) -> np.ndarray:
    """o_a times the sum of v_w + o_w over the taps inside the image."""
    weight_bits = len(geometry.weight_coefficients)
    # An encoding of scale 2 whose zero points give these offsets.
    zero_point = (sum(geometry.weight_coefficients) - offset) / 2
    weight = Encoding(weight_bits, 2.0, zero_point, geometry.weight_coefficients)
    ones = np.ones((1, *(int(size) for size in list(call.args[0].ty.shape)[1:])), np.uint8)
    # 1-bit codes 1 with v = +1 and o = 0 stand for the integer 1.
    if is_call_to(call, branch_dense_op):
        sums = dense(ones, SIGN, weight_codes, weight)
    else:
        sums = conv2d(
            ones,
            SIGN,
            weight_codes,
            weight,
            geometry.strides,
            geometry.padding,
            geometry.dilation,
            geometry.groups,
        )
    return geometry.act_offset * sums
