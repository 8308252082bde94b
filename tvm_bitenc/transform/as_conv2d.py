"""Quantized layers of other shapes become 2-d convolutions and products of two matrices.

Before::

    y = R.nn.conv1d(a, w)                               # (N, C, L)
    y1 = R.nn.conv2d_transpose(a1, w1, strides=[2, 2])
    y2 = R.matmul(a2, w2)                               # (N, T, C) x (C, O)

After::

    y = R.squeeze(R.nn.conv2d(R.expand_dims(a, 2), R.expand_dims(w, 2)), 2)
    y1 = bitenc.interleave((R.nn.conv2d(a1, w1[..., 1::2, 1::2]), ...))  # see `conv_transpose`
    y2 = R.reshape(R.matmul(R.reshape(a2, (N T, C)), w2), (N, T, O))

What isn't quantized stays as it is: `lower` says why.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tvm
from tvm import relax

from .analysis.float32 import evaluate, op_name
from .conv_transpose import conv2d_of_transposed
from .lower.padding import split_padding
from .lower.reasons import reason_for_float
from .rewrite import Graph, rewrite_calls


@tvm.transform.module_pass(opt_level=0, name="bitenc.AsConv2d")
class AsConv2d:
    """Rewrite layers, so that later passes know two kinds of them; split tensors by slices."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        mod = relax.transform.CanonicalizeBindings()(rewrite_calls(mod, _as_conv2d))
        return relax.transform.DeadCodeElimination()(mod)


def _as_conv2d(call: relax.Call, graph: Graph) -> relax.Expr | None:
    if op_name(call) == "relax.split":
        return _slices_of_split(call, graph)
    rewrite = _LAYERS.get(op_name(call))
    if rewrite is None or reason_for_float(call, graph):
        return None
    return rewrite(call, graph)


def _slices_of_split(call: relax.Call, graph: Graph) -> relax.Expr:
    axis, begin, parts = int(call.attrs.axis), 0, []
    for field in call.ty.fields:
        end = begin + int(field.shape[axis])
        part = relax.op.strided_slice(call.args[0], [axis], [begin], [end], assume_inbound=False)
        parts.append(graph.emit(part))
        begin = end
    return relax.Tuple(parts)


def _conv1d(call: relax.Call, graph: Graph) -> relax.Expr:
    attrs, (row, (left, right)) = call.attrs, split_padding(call, graph)
    image, kernel = (graph.emit(relax.op.expand_dims(t, 2)) for t in (row, call.args[1]))
    sums = relax.op.nn.conv2d(
        image,
        kernel,
        strides=[1, int(attrs.strides[0])],
        padding=[0, left, 0, right],
        dilation=[1, int(attrs.dilation[0])],
        groups=int(attrs.groups),
    )
    return relax.op.squeeze(graph.emit(sums), 2)


def _conv1d_transpose(call: relax.Call, graph: Graph) -> relax.Expr:
    attrs, (left, right) = call.attrs, (int(pad) for pad in call.attrs.padding)
    image, kernel = (graph.emit(relax.op.expand_dims(operand, 2)) for operand in call.args)
    transposed = relax.op.nn.conv2d_transpose(
        image,
        kernel,
        strides=[1, int(attrs.strides[0])],
        padding=[0, left, 0, right],
        output_padding=[0, int(attrs.output_padding[0])],
        dilation=[1, int(attrs.dilation[0])],
        groups=int(attrs.groups),
    )
    sums = conv2d_of_transposed(graph.typed(transposed), graph)
    return relax.op.squeeze(graph.emit(sums), 2)


def _matmul(call: relax.Call, graph: Graph) -> relax.Expr | None:
    """See all rows in front of the features as one axis, where there is one matrix of weights."""
    rows, weight = call.args[0], _one_matrix(call.args[1], graph)
    if weight is None or len(rows.ty.shape) < 3:
        return None
    flat = graph.emit(relax.op.reshape(rows, (-1, rows.ty.shape[-1])))
    return relax.op.reshape(graph.emit(relax.op.matmul(flat, weight)), call.ty.shape)


def _one_matrix(weight: relax.Expr, graph: Graph) -> relax.Expr | None:
    """Return the matrix of a weight, which torch may repeat along the batch."""
    if len(weight.ty.shape) == 2:
        return weight
    values = evaluate(weight, graph)
    if values is None:
        return None
    shape = values.shape
    matrices = values.reshape(-1, *shape[-2:])
    if not np.array_equal(matrices, np.broadcast_to(matrices[:1], matrices.shape)):
        return None
    axes = list(range(len(shape) - 2))
    zeros, ones = [0 for _ in axes], [1 for _ in axes]
    first = relax.op.strided_slice(weight, axes, zeros, ones, assume_inbound=False)
    return graph.emit(relax.op.reshape(graph.emit(first), shape[-2:]))


_LAYERS: dict[str, Callable[[relax.Call, Graph], relax.Expr | None]] = {
    "relax.nn.conv1d": _conv1d,
    "relax.nn.conv1d_transpose": _conv1d_transpose,
    "relax.nn.conv2d_transpose": conv2d_of_transposed,
    "relax.matmul": _matmul,
}
