"""Pass 2: convolutions and dense layers of two quantized tensors become sums of branches.

Before::

    a = bitenc.quantize(x, scale_a, zero_a)
    w = bitenc.quantize(weight, scale_w, zero_w)
    y = R.nn.conv2d(a, w)

After::

    codes = bitenc.encode(x, scale_a, zero_a)                        # uint8
    acc = bitenc.branch_conv2d(codes, weight_codes, weight_offset)   # int32
    y = R.multiply(R.astype(acc, "float32"), scale_a * scale_w / 4)

The integer sum is exact, where a float convolution rounds. Both give the same y bit for bit while
the scales are powers of two, or outside the convolution as `tvm_bitenc.nn` puts them, and sums stay
below 2^24; else they differ by the float convolution's own rounding.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import tvm
from tvm import relax

from ..encoding import Encoding, accumulator_bound, along, check_accumulator
from ..errors import UnsupportedError
from ..op.branch import branch_conv2d, branch_dense
from ..op.quantize import encode, encoding_of, quantize_op
from ..op.registration import describe, is_call_to
from .float32 import evaluate, op_name
from .rewrite import Graph, rewrite_calls

# Ops that move or choose among values without computing: they act on codes as on values.
SHAPING = ("relax.reshape", "relax.permute_dims", "relax.nn.max_pool2d")


@tvm.transform.module_pass(opt_level=0, name="bitenc.Lower")
class Lower:
    """Lower what has two quantized tensors; what hasn't stays float, see `float_layers`."""

    def transform_module(self, mod: tvm.IRModule, _ctx) -> tvm.IRModule:
        """Rewrite the module."""
        mod = rewrite_calls(mod, lower_layer)
        return relax.transform.EliminateCommonSubexpr()(mod)


def lower_layer(call: relax.Call, graph: Graph) -> relax.Expr | None:
    """Return a layer as a sum of branches, None if it stays float; raises if it is refused."""
    if not is_layer(call) or reason_for_float(call, graph):
        return None
    if op_name(call) == "relax.nn.conv2d":
        return _lower_conv2d(call, graph)
    return _lower_dense(call, graph)


def is_layer(expr: relax.Expr) -> bool:
    """Whether an expression is a float convolution or matrix product."""
    name = op_name(expr)
    return name == "relax.matmul" or (name.startswith("relax.nn.conv") and "bias" not in name)


def reason_for_float(call: relax.Call, graph: Graph) -> str:
    """Why a layer can't be lowered, empty if it can."""
    if op_name(call) not in ("relax.nn.conv2d", "relax.matmul"):
        return f"{op_name(call)} has no branch form yet"
    if _quantizer(call.args[0], graph) is None:
        return "its input isn't quantized"
    if _quantizer(call.args[1], graph) is None:
        return "its weight isn't quantized"
    if op_name(call) == "relax.matmul" and len(call.args[0].ty.shape) != 2:
        return "matrix products need a 2-d input"
    if op_name(call) == "relax.nn.conv2d" and (
        (call.attrs.data_layout, call.attrs.kernel_layout) != ("NCHW", "OIHW")
    ):
        return f"its layout is {call.attrs.data_layout}/{call.attrs.kernel_layout}, not NCHW/OIHW"
    return ""


def float_layers(mod: tvm.IRModule) -> list[tuple[relax.Call, str]]:
    """Layers that `Lower` leaves in float, each with the reason."""
    found = []

    def note(call: relax.Call, graph: Graph) -> None:
        if is_layer(call):
            found.append((call, reason_for_float(call, graph)))

    rewrite_calls(mod, note)
    return [(call, reason) for call, reason in found if reason]


def _quantizer(expr: relax.Expr, graph: Graph) -> relax.Call | None:
    """Return the quantizer that an expression's values come from, through shaping ops alone."""
    expr = graph.definition(expr)
    while op_name(expr) in SHAPING:
        expr = graph.definition(expr.args[0])
    return expr if is_call_to(expr, quantize_op) else None


def _lower_conv2d(call: relax.Call, graph: Graph) -> relax.Expr:
    weight_codes, weight, layer = _weight(call, graph, out_axis=0)
    codes, act = _act(call, graph, layer)
    _check(weight_codes, weight, act, f"conv2d of layer {layer!r}")
    acc = branch_conv2d(
        codes,
        act,
        weight_codes,
        weight,
        strides=[int(v) for v in call.attrs.strides],
        padding=[int(v) for v in call.attrs.padding],
        dilation=[int(v) for v in call.attrs.dilation],
        groups=int(call.attrs.groups),
        layer=layer,
    )
    return _rescale(graph.emit(acc), act, weight, (1, -1, 1, 1), graph)


def _lower_dense(call: relax.Call, graph: Graph) -> relax.Expr:
    weight_codes, weight, layer = _weight(call, graph, out_axis=1)
    codes, act = _act(call, graph, layer)
    _check(weight_codes, weight, act, f"dense layer {layer!r}")
    acc = branch_dense(codes, act, weight_codes, weight, layer=layer)
    return _rescale(graph.emit(acc), act, weight, (1, -1), graph)


def _check(weight_codes: np.ndarray, weight: Encoding, act: Encoding, where: str) -> None:
    if act.is_per_channel:
        raise UnsupportedError(
            where,
            "its activations have a scale per channel, which no integer sum can carry",
            "Quantize activations per tensor",
        )
    try:
        check_accumulator(accumulator_bound(weight_codes, weight, act), where)
    except UnsupportedError as error:
        raise type(error)(where, error.cause, error.cure) from None


def _act(call: relax.Call, graph: Graph, layer: str) -> tuple[relax.Expr, Encoding]:
    """Codes of the layer's input: the quantizer becomes an encoder, shaping ops act on codes."""
    quantizer = _quantizer(call.args[0], graph)
    encoding = _per_tensor(encoding_of(quantizer))

    def codes_of(expr: relax.Expr) -> relax.Expr:
        expr = graph.definition(expr)
        if expr.same_as(quantizer):
            return graph.emit(encoder_of(quantizer))
        if not encoding.is_positional and op_name(expr) == "relax.nn.max_pool2d":
            raise UnsupportedError(
                f"max_pool2d before layer {layer!r}",
                "its codes don't rise with their values",
                "Quantize after the pooling",
            )
        codes = codes_of(expr.args[0])
        return graph.emit(relax.Call(expr.op, [codes, *expr.args[1:]], expr.attrs))

    return codes_of(call.args[0]), encoding


def encoder_of(quantizer: relax.Call) -> relax.Call:
    """Codes of what a quantizer makes. All readers of one quantizer share them."""
    axis, layer = int(quantizer.attrs["axis"]), str(quantizer.attrs["layer"])
    return encode(quantizer.args[0], _per_tensor(encoding_of(quantizer)), axis, layer)


def _weight(call: relax.Call, graph: Graph, out_axis: int) -> tuple[np.ndarray, Encoding, str]:
    """Weight codes with output channels first, their encoding, and the layer's name."""
    expr, quantizer = graph.definition(call.args[1]), _quantizer(call.args[1], graph)
    layer = str(quantizer.attrs["layer"]) or op_name(call).split(".")[-1]
    values = evaluate(quantizer.args[0], graph)
    if values is None:
        raise UnsupportedError(
            f"{describe(call)} {layer!r}",
            "its weight isn't constant",
            "Bind the parameters before compiling (keep_params_as_input=False)",
        )
    if not np.isfinite(values).all():
        raise UnsupportedError(
            f"{describe(call)} {layer!r}", "its weight has NaN or infinity", "Train it again"
        )
    encoding, axis = _per_tensor(encoding_of(quantizer)), int(quantizer.attrs["axis"])
    codes = encoding.quantize(values, axis)
    if op_name(expr) == "relax.permute_dims" and codes.ndim == 2:
        codes, axis = codes.T, 1 - axis
    elif not expr.same_as(quantizer):
        raise UnsupportedError(
            f"{describe(call)} {layer!r}",
            f"{op_name(expr)} stands between its weight and the quantizer",
            "Quantize the weight in its final shape",
        )
    if encoding.is_per_channel and axis != out_axis:
        raise UnsupportedError(
            f"{describe(call)} {layer!r}",
            f"its weight has a scale per entry of axis {axis}, not per output channel",
            "Use one scale per output channel, or per tensor",
        )
    return np.ascontiguousarray(np.moveaxis(codes, out_axis, 0)), encoding, layer


def _per_tensor(encoding: Encoding) -> Encoding:
    """Spell arrays of one entry as scalars."""
    if encoding.is_per_channel and encoding.scale.size == encoding.zero_point.size == 1:
        scale, zero_point = encoding.scale.reshape(()), encoding.zero_point.reshape(())
        return dataclasses.replace(encoding, scale=scale, zero_point=zero_point)
    return encoding


def _rescale(
    acc: relax.Expr, act: Encoding, weight: Encoding, shape: tuple[int, ...], graph: Graph
) -> relax.Expr:
    """Real value of accumulators: s_a s_w / 4 times them."""
    real = relax.op.astype(acc, "float32")
    scale = (act.scale.astype(np.float64) * weight.scale / 4).astype(np.float32)
    if np.all(scale == 1):
        return real
    scale = along(scale, len(shape), 1)
    return relax.op.multiply(graph.emit(real), relax.const(scale, "float32"))
