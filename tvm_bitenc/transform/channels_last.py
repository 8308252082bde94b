"""Float arithmetic between quantized layers keeps the channels last, as planes have them.

Before::

    y = R.permute_dims(acc, NCHW)                # from int32 NHWC
    y1 = R.multiply(R.astype(y, "float32"), scale)  # scale (C, 1, 1)
    planes = bitenc.pack(R.permute_dims(bitenc.encode(y1), NHWC))

After::

    y1 = R.multiply(R.astype(acc, "float32"), scale_last)  # (1, 1, 1, C)
    planes = bitenc.pack(bitenc.encode(y1))

Each op whose image comes from a permutation to NCHW is rewritten in front of it; a permutation
back cancels it. A dense layer has images of one pixel, which are reshaped: ops on its rows are
rewritten in front of that as well.
"""

from __future__ import annotations

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, tirx

from ..op.decode import decode_op
from ..op.quantize import encode_op, quantize_op
from ..op.registration import is_call_to
from .analysis.float32 import ELEMENTWISE, evaluate, op_name
from .analysis.shaping import RESHAPING
from .layout import NCHW, NHWC
from .rewrite import Graph, rewrite_calls

# Of one tensor, element by element; attributes at most beside it.
UNARY = {
    f"relax.{name}"
    for name in (
        *("astype", "clip", "negative", "abs", "exp", "log", "sqrt", "erf", "sigmoid", "tanh"),
        *("nn.relu", "nn.relu6", "nn.leakyrelu", "nn.silu", "nn.gelu", "nn.gelu_tanh"),
    )
}


MAX_RESHAPINGS = 16  # One after another, that are looked through.


@tvm.transform.module_pass(opt_level=0, name="bitenc.ChannelsLast")
class ChannelsLast:
    """Move permutations to NCHW behind float arithmetic, pooling and encoders."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        mod = rewrite_calls(mod, _channels_last)
        # Layers that read the same codes pack them once.
        return relax.transform.EliminateCommonSubexpr()(mod)


def _channels_last(call: relax.Call, graph: Graph) -> relax.Expr | None:
    name = op_name(call)
    if name == "relax.permute_dims":
        source = _source(call.args[0], graph)
        if source is None:
            source = _pixels(call.args[0], graph)
            if source is not None and not tvm_ffi.structural_equal(source.ty, call.ty):
                return None
        if source is not None and list(call.attrs.axes or ()) == NHWC:
            return source
        return None
    if name in UNARY or any(is_call_to(call, op) for op in (encode_op, quantize_op, decode_op)):
        moved = _unary(call, graph)
        return _unary_of_rows(call, graph) if moved is None else moved
    if name in ELEMENTWISE:
        moved = _elementwise(call, graph)
        return _elementwise_of_rows(call, graph) if moved is None else moved
    if name == "relax.nn.prelu":
        return _prelu(call, graph)
    if name == "relax.nn.max_pool2d":
        return _max_pool2d(call, graph)
    return _mean(call, graph) if name == "relax.mean" else None


def _source(expr: relax.Expr, graph: Graph) -> relax.Expr | None:
    """Return the NHWC tensor that an NCHW one is the permutation of."""
    permute = graph.definition(expr)
    if op_name(permute) == "relax.permute_dims" and list(permute.attrs.axes or ()) == NCHW:
        return permute.args[0]
    return None


def _pixels(expr: relax.Expr, graph: Graph) -> relax.Expr | None:
    """Return the tensor (N, 1, 1, C) that another one is the reshaping of."""
    shaping = graph.definition(expr)
    for _ in range(MAX_RESHAPINGS):
        if op_name(shaping) not in (*RESHAPING, "relax.permute_dims"):
            return None
        source = shaping.args[0]
        if _is_pixels(source):
            return source
        if op_name(shaping) == "relax.permute_dims":
            return None
        shaping = graph.definition(source)
    return None


def _is_pixels(expr: relax.Expr) -> bool:
    """Whether a tensor has the shape (N, 1, 1, C); then no permutation to NCHW moves anything."""
    inner = list(expr.ty.shape)[1:-1]
    return len(inner) == 2 and all(
        isinstance(size, tirx.IntImm) and int(size) == 1 for size in inner
    )


def _rows(expr: relax.Expr, graph: Graph) -> relax.Expr | None:
    """Return the tensor (N, 1, 1, C) that one of the shape (..., C) is the reshaping of."""
    source = _pixels(expr, graph)
    if source is None or _row_length(source) != _row_length(expr):
        return None
    return source


def _row_length(expr: relax.Expr) -> list[str]:
    """Size of the last axis, as text; none of one number without axes."""
    return [str(size) for size in expr.ty.shape][-1:]


def _unary_of_rows(call: relax.Call, graph: Graph) -> relax.Expr | None:
    source = _rows(call.args[0], graph)
    if source is None or int(getattr(call.attrs, "axis", -1) or -1) >= 0:
        return None
    result = graph.emit(relax.Call(call.op, [source, *call.args[1:]], call.attrs))
    return relax.op.reshape(result, call.ty.shape)


def _elementwise_of_rows(call: relax.Call, graph: Graph) -> relax.Expr | None:
    """Rewrite an op of rows and constants of the last axis alone, or a sum of rows."""
    sources = [_rows(argument, graph) for argument in call.args]
    pixels = next((source for source in sources if source is not None), None)
    if pixels is None:
        return None
    scalar = (1, 1, 1, 1) if op_name(call) == "bitenc.multiply_add" else (1,)
    arguments, channels = [], int(pixels.ty.shape[-1])
    for argument, source in zip(call.args, sources):
        value = evaluate(argument, graph)
        if value is not None and value.size == 1:
            arguments.append(relax.const(value.reshape(scalar), str(value.dtype)))
        elif value is not None and value.shape[-1:] == (channels,) and value.size == channels:
            arguments.append(relax.const(value.reshape(1, 1, 1, -1), str(value.dtype)))
        elif not tvm_ffi.structural_equal(argument.ty.shape, call.ty.shape):
            return None
        elif source is not None:
            arguments.append(source)
        elif op_name(call) == "relax.add":  # What layers can add to their outputs.
            arguments.append(graph.emit(relax.op.reshape(argument, pixels.ty.shape)))
        else:
            return None
    result = graph.emit(relax.Call(call.op, arguments, call.attrs))
    return relax.op.reshape(result, call.ty.shape)


def _back(expr: relax.Expr, graph: Graph) -> relax.Expr:
    return relax.op.permute_dims(graph.emit(expr), NCHW)


def _unary(call: relax.Call, graph: Graph) -> relax.Expr | None:
    source = _source(call.args[0], graph)
    if source is None or int(getattr(call.attrs, "axis", -1) or -1) >= 0:
        return None
    return _back(relax.Call(call.op, [source, *call.args[1:]], call.attrs), graph)


def _prelu(call: relax.Call, graph: Graph) -> relax.Expr | None:
    source = _source(call.args[0], graph)
    if source is None or int(call.attrs.axis) % 4 != 1:
        return None
    return _back(relax.op.nn.prelu(source, call.args[1], 3), graph)


def _elementwise(call: relax.Call, graph: Graph) -> relax.Expr | None:
    """Rewrite an op of images from NHWC and constants that vary along channels alone."""
    sources = [_source(argument, graph) for argument in call.args]
    if len(call.ty.shape) != 4 or not any(source is not None for source in sources):
        return None
    # `bitenc.multiply_add` wants all its arguments of one rank. A scalar of no axes would become a
    # literal in the generated code, and TVM refuses to divide by a literal 0.
    scalar = (1, 1, 1, 1) if op_name(call) == "bitenc.multiply_add" else (1,)
    arguments = []
    for argument, source in zip(call.args, sources):
        value = None if source is not None else evaluate(argument, graph)
        if source is not None:
            arguments.append(source)
        elif value is not None and value.size == 1:
            arguments.append(relax.const(value.reshape(scalar), str(value.dtype)))
        elif value is not None and _is_per_channel(value, call):
            arguments.append(relax.const(value.reshape(1, 1, 1, -1), str(value.dtype)))
        else:
            return None
    return _back(relax.Call(call.op, arguments, call.attrs), graph)


def _is_per_channel(value: np.ndarray, call: relax.Call) -> bool:
    channels = int(call.ty.shape[1])
    shape = (1,) * (4 - value.ndim) + value.shape
    return value.ndim <= 4 and shape == (1, channels, 1, 1)


def _max_pool2d(call: relax.Call, graph: Graph) -> relax.Expr | None:
    source = _source(call.args[0], graph)
    if source is None or str(call.attrs.layout) != "NCHW" or str(source.ty.dtype) != "float32":
        return None
    attrs = call.attrs
    pooled = relax.op.nn.max_pool2d(
        source,
        list(attrs.pool_size),
        list(attrs.strides),
        list(attrs.padding),
        list(attrs.dilation),
        attrs.ceil_mode,
        attrs.count_include_pad,
        "NHWC",
    )
    return _back(pooled, graph)


def _mean(call: relax.Call, graph: Graph) -> relax.Expr | None:
    source = _source(call.args[0], graph)
    axes = [int(axis) % 4 for axis in call.attrs.axis or ()]
    if source is None or axes != [2, 3]:
        return None
    mean = relax.op.mean(source, [1, 2], bool(call.attrs.keepdims))
    return _back(mean, graph) if call.attrs.keepdims else mean
