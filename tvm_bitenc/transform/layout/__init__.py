"""Codes flow between layers as packed planes, channels last.

Before::

    lv = bitenc.branch_conv2d(codes, w, o)         # int32 NCHW
    lv1 = bitenc.threshold(lv, t, d)               # uint8 NCHW
    lv2 = bitenc.branch_conv2d(lv1, w2, o2)

After::

    lv = bitenc.pack(R.permute_dims(codes, NHWC))  # uint64 (N, H, W, bits, words)
    lv1 = bitenc.packed_conv2d(lv, w, o)           # int32 NHWC
    lv2 = bitenc.packed_threshold(lv1, t, d)       # uint64 (N, H, W, bits, words)
    lv3 = bitenc.packed_conv2d(lv2, w2, o2)
    lv4 = R.permute_dims(lv3, NCHW)

Each op is rewritten alone, between a conversion in and one back; where a conversion back meets the
next one in, both go. Concatenations, upsampling and other shaping ops between layers move words
where they can. A dense layer is a convolution with the kernel size of the image that it
flattens, or 1x1.
"""

from __future__ import annotations

import tvm
import tvm_ffi
from tvm import relax

from ...op.branch import branch_conv2d_op, branch_dense_op, geometry_of
from ...op.lookup import lookup_op, packed_lookup
from ...op.packed import packed_conv2d, packed_max_pool2d, packed_threshold
from ...op.registration import is_call_to, make_call, required_constant
from ...op.threshold import threshold_op
from ..analysis.float32 import op_name
from ..rewrite import Graph, merge_equal, rewrite_calls
from .planes import NCHW, NHWC, packed_source, planes_of, unpacked
from .shaping import shape_planes

__all__ = ["NCHW", "NHWC", "Layout"]


@tvm.transform.module_pass(opt_level=0, name="bitenc.Layout")
class Layout:
    """Rewrite ops on codes to ops on packed planes."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        # First thresholds that slices of one tensor share, then what is packed for two layers.
        return merge_equal(rewrite_calls(merge_equal(mod), _layout))


def _layout(call: relax.Call, graph: Graph) -> relax.Expr | None:
    if is_call_to(call, branch_conv2d_op):
        return _conv2d(call, graph)
    if is_call_to(call, branch_dense_op):
        return _dense(call, graph)
    if is_call_to(call, threshold_op):
        return _threshold(call, graph)
    if is_call_to(call, lookup_op):
        return _lookup(call, graph)
    if op_name(call) == "relax.nn.max_pool2d":
        return _max_pool2d(call, graph)
    return shape_planes(call, graph)


def _conv2d(call: relax.Call, graph: Graph) -> relax.Expr:
    geometry = geometry_of(call)
    planes = planes_of(call.args[0], len(geometry.act_coefficients), graph)
    acc = graph.emit(packed_conv2d(planes, call))
    return relax.op.permute_dims(acc, NCHW)


def _dense(call: relax.Call, graph: Graph) -> relax.Expr:
    """See a dense layer as a convolution whose window is the whole image."""
    codes, weight = call.args[0], required_constant(call.args[1])
    image = _flattened_image(codes, graph)
    if image is None:
        batch, features = codes.ty.shape
        image = graph.emit(relax.op.reshape(codes, (batch, features, 1, 1)))
    weight = weight.reshape(len(weight), *(int(size) for size in list(image.ty.shape)[1:]))
    attributes = dict(call.attrs.items())
    convolution = make_call(
        branch_conv2d_op, [image, relax.const(weight, "uint8"), call.args[2]], **attributes
    )
    acc = graph.emit(_conv2d(graph.typed(convolution), graph))
    return relax.op.reshape(acc, call.ty.shape)


def _flattened_image(codes: relax.Expr, graph: Graph) -> relax.Expr | None:
    """Return the packed 4-d image that codes are the flattening of, if they are."""
    flatten = graph.definition(codes)
    if op_name(flatten) != "relax.reshape" or len(flatten.args[0].ty.shape) != 4:
        return None
    image = flatten.args[0]
    same_batch = tvm_ffi.structural_equal(image.ty.shape[0], codes.ty.shape[0])
    return image if same_batch and packed_source(image, graph) is not None else None


def _threshold(call: relax.Call, graph: Graph) -> relax.Expr | None:
    permute = graph.definition(call.args[0])
    if len(call.ty.shape) == 2:
        return _dense_threshold(call, permute, graph)
    if op_name(permute) != "relax.permute_dims":
        return None
    planes = graph.emit(packed_threshold(permute.args[0], call))
    return unpacked(planes, call.ty.shape[1], graph)


def _dense_threshold(call: relax.Call, reshape: relax.Expr, graph: Graph) -> relax.Expr | None:
    if op_name(reshape) != "relax.reshape":
        return None
    permute = graph.definition(reshape.args[0])
    if op_name(permute) != "relax.permute_dims":
        return None
    planes = graph.emit(packed_threshold(permute.args[0], call))
    image = graph.emit(unpacked(planes, call.ty.shape[1], graph))
    return relax.op.reshape(image, call.ty.shape)


def _max_pool2d(call: relax.Call, graph: Graph) -> relax.Expr | None:
    source = packed_source(call.args[0], graph)
    if source is None:
        return None
    planes = graph.emit(packed_max_pool2d(source.args[0], call))
    return unpacked(planes, call.ty.shape[1], graph)


def _lookup(call: relax.Call, graph: Graph) -> relax.Expr | None:
    *codes, table = call.args
    if len(call.ty.shape) != 4:
        return None
    bits = [int(size).bit_length() - 1 for size in table.ty.shape]
    planes = [planes_of(tensor, b, graph) for tensor, b in zip(codes, bits)]
    return unpacked(graph.emit(packed_lookup(planes, call)), call.ty.shape[1], graph)
