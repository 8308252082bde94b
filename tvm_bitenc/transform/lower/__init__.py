"""Convolutions and matrix products of two quantized tensors become sums of branches.

Before::

    a = bitenc.quantize(x, scale_a, zero_a)
    w = bitenc.quantize(weight, scale_w, zero_w)
    y = R.nn.conv2d(a, w)

After::

    codes = bitenc.encode(x, scale_a, zero_a)                        # uint8
    acc = bitenc.branch_conv2d(codes, weight_codes, weight_offset)   # int32
    y = R.multiply(R.astype(acc, "float32"), scale_a * scale_w / 4)

Shaping ops between quantizer and layer act on the codes, and zeros around an image become padding
of the convolution. The product of two activations becomes `bitenc.branch_matmul`, which takes the
second one transposed, too.

The integer sum is exact, where a float convolution rounds. Both give the same y bit for bit while
the scales are powers of two, or outside the convolution as `tvm_bitenc.nn` puts them, and sums stay
below 2^24; else they differ by the float convolution's own rounding.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from ...bounds import accumulator_bound, check_accumulator
from ...encoding import Encoding, along
from ...errors import UnsupportedError
from ...layer import four_sides, height_width
from ...op.branch import branch_conv2d, branch_dense
from ...op.matmul import branch_matmul
from ..analysis.float32 import op_name
from ..rewrite import Graph, merge_equal, rewrite_calls
from .integers import integer_sums
from .operands import activation, encoder_of, layer_name, weight
from .padding import split_padding
from .reasons import float_layers, is_layer, is_product_of_activations, reason_for_float

# Ops that may leave matrices, the last two axes, as they are.
BATCHING = {"relax.reshape": relax.op.reshape, "relax.broadcast_to": relax.op.broadcast_to}

__all__ = [
    "Lower",
    "encoder_of",
    "float_layers",
    "is_layer",
    "lower_layer",
    "reason_for_float",
]


@tvm.transform.module_pass(opt_level=0, name="bitenc.Lower")
class Lower:
    """Lower what has two quantized tensors; what hasn't stays float, see `float_layers`."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        mod = rewrite_calls(mod, lower_layer)
        return merge_equal(rewrite_calls(mod, integer_sums))


def lower_layer(call: relax.Call, graph: Graph) -> relax.Expr | None:
    """Return a layer as a sum of branches, None if it stays float; raises if it is refused."""
    name = op_name(call)
    if name not in ("relax.nn.conv2d", "relax.matmul") or reason_for_float(call, graph):
        return None
    if name == "relax.nn.conv2d":
        return _lower_conv2d(call, graph)
    if is_product_of_activations(call, graph):
        return _lower_product_of_activations(call, graph)
    return _lower_dense(call, graph) if len(call.args[0].ty.shape) == 2 else None


def _lower_conv2d(call: relax.Call, graph: Graph) -> relax.Expr:
    layer = layer_name(call, graph)
    weight_codes, weight_encoding = weight(call, graph, out_axis=0)
    image, padding = split_padding(call, graph)
    codes, act = activation(image, graph, layer)
    _check(weight_codes, weight_encoding, act, f"conv2d of layer {layer!r}")
    acc = branch_conv2d(
        codes,
        act,
        weight_codes,
        weight_encoding,
        strides=height_width(call.attrs.strides),
        padding=four_sides(padding),
        dilation=height_width(call.attrs.dilation),
        groups=int(call.attrs.groups),
        layer=layer,
    )
    return _rescale(graph.emit(acc), act, weight_encoding, graph)


def _lower_dense(call: relax.Call, graph: Graph) -> relax.Expr:
    layer = layer_name(call, graph)
    weight_codes, weight_encoding = weight(call, graph, out_axis=1)
    codes, act = activation(call.args[0], graph, layer)
    _check(weight_codes, weight_encoding, act, f"dense layer {layer!r}")
    acc = branch_dense(codes, act, weight_codes, weight_encoding, layer=layer)
    return _rescale(graph.emit(acc), act, weight_encoding, graph)


def _lower_product_of_activations(call: relax.Call, graph: Graph) -> relax.Expr:
    layer, where = layer_name(call, graph), f"matmul {layer_name(call, graph)!r}"
    (codes_a, a), (codes_b, b) = (activation(operand, graph, layer) for operand in call.args)
    for encoding in (a, b):
        _check_activations(encoding, where)
    terms = int(call.args[0].ty.shape[-1])
    check_accumulator(terms * _largest_integer(a) * _largest_integer(b), where)
    shape, rows = list(call.ty.shape), _transposed(codes_b, graph)
    operands = codes_a, codes_b if rows is None else rows
    matrices = [_as_matrices(codes, shape[:-2], graph) for codes in operands]
    transpose_b = rows is not None
    product = branch_matmul(matrices[0], a, matrices[1], b, transpose_b=transpose_b, layer=layer)
    acc = graph.emit(product)
    if len(shape) != 3:
        acc = graph.emit(relax.op.reshape(acc, shape))
    return _rescale(acc, a, b, graph)


def _as_matrices(codes: relax.Expr, batch: list, graph: Graph) -> relax.Expr:
    """Codes of three axes, the first of which numbers the matrices."""
    shape = list(codes.ty.shape)
    if [*map(str, shape[:-2])] != [*map(str, batch)]:
        codes = graph.emit(relax.op.broadcast_to(codes, (*batch, *shape[-2:])))
    if len(codes.ty.shape) == 3:
        return codes
    return graph.emit(relax.op.reshape(codes, (-1, *shape[-2:])))


def _transposed(codes: relax.Expr, graph: Graph) -> relax.Expr | None:
    """The matrices whose transposition codes are, where that takes no moving of single codes."""
    batched, permute = [], graph.definition(codes)
    while op_name(permute) in BATCHING and _same_matrices(permute, permute.args[0]):
        batched.append(permute)
        permute = graph.definition(permute.args[0])
    if op_name(permute) != "relax.permute_dims":
        return None
    rank = len(permute.ty.shape)
    *outer, row, column = permute.attrs.axes or reversed(range(rank))
    axes = [int(axis) % rank for axis in (*outer, column, row)]
    if axes[-1] != rank - 1:
        return None
    matrices = permute.args[0]
    if axes != list(range(rank)):
        matrices = graph.emit(relax.op.permute_dims(matrices, axes))
    for call in reversed(batched):
        *batch, rows, columns = call.ty.shape
        matrices = graph.emit(BATCHING[op_name(call)](matrices, (*batch, columns, rows)))
    return matrices


def _same_matrices(a: relax.Expr, b: relax.Expr) -> bool:
    """Whether two tensors differ in how their matrices are numbered, at most."""
    sizes = [[str(size) for size in list(x.ty.shape)[-2:]] for x in (a, b)]
    return sizes[0] == sizes[1] and len(sizes[0]) == 2


def _largest_integer(encoding: Encoding) -> int:
    return int(np.abs(encoding.bipolar_values + encoding.offset).max())


def _check(weight_codes: np.ndarray, weight: Encoding, act: Encoding, where: str) -> None:
    _check_activations(act, where)
    try:
        check_accumulator(accumulator_bound(weight_codes, weight, act), where)
    except UnsupportedError as error:
        raise type(error)(where, error.cause, error.cure) from None


def _check_activations(act: Encoding, where: str) -> None:
    if act.is_per_channel:
        raise UnsupportedError(
            where,
            "its activations have a scale per channel, which no integer sum can carry "
            "(refused by design)",
            "Quantize activations per tensor",
        )


def _rescale(acc: relax.Expr, act: Encoding, weight: Encoding, graph: Graph) -> relax.Expr:
    """Real value of accumulators, whose output channels are on axis 1: s_a s_w / 4 times them."""
    real = relax.op.astype(acc, "float32")
    scale = (act.scale.astype(np.float64) * weight.scale / 4).astype(np.float32)
    if np.all(scale == 1):
        return real
    scale = along(scale, len(acc.ty.shape), 1)
    return relax.op.multiply(graph.emit(real), relax.const(scale, "float32"))
