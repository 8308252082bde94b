"""Operators that reduce axes: sums, extremes and their positions, running sums, the largest."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from onnx import NodeProto
from tvm import relax
from tvm.relax import op

from ...errors import UnsupportedError
from .constants import literal
from .elementwise import BOOL, FLOATS, NUMBERS, check_dtype, scalar
from .importer import Converter, Importer
from .model import describe_node
from .shaping import axes_of, axis_of, fixed_shape

_SAME_OF_ONE = ("ReduceMax", "ReduceMin", "ReduceSum", "ReduceMean", "ReduceProd")


def _reduce(importer: Importer, node: NodeProto) -> None:
    allowed = NUMBERS + (BOOL if node.op_type in ("ReduceMax", "ReduceMin") else ())
    dtype = check_dtype(importer, node, allowed)
    attributes, sizes = importer.attributes(node), importer.shape(node.input[0])
    keep = bool(attributes["keepdims"])
    axes = axes_of(importer, node, 1, len(sizes)) or None
    x = importer.expression(node.input[0])
    if axes is None and attributes.get("noop_with_empty_axes", 0):
        if node.op_type not in _SAME_OF_ONE:
            raise UnsupportedError(describe_node(node), "reduces no axis", "Leave that op out")
        return importer.define(node, x)
    axes = list(range(len(sizes))) if axes is None else axes
    counted = [sizes[axis] for axis in axes]
    return importer.define(node, _reduced(importer, node, x, dtype, axes, keep, counted))


def _reduced(
    importer: Importer,
    node: NodeProto,
    x: relax.Expr,
    dtype: str,
    axes: list[int],
    keep: bool,
    counted: list,
) -> relax.Expr:
    kind, emit = node.op_type.removeprefix("Reduce"), importer.builder.emit
    total = partial(op.sum, axis=axes, keepdims=keep)
    if kind in ("Max", "Min"):
        reduce = op.max if kind == "Max" else op.min
        if dtype in BOOL:
            return op.astype(reduce(op.astype(x, "uint8"), axes, keep), "bool")
        return reduce(x, axes, keep)
    if kind == "Sum":
        return total(x)
    if kind == "Prod":
        return op.prod(x, axes, keep)
    if kind == "Mean" and dtype in FLOATS:
        return op.mean(x, axes, keep)
    if kind == "L1":
        return total(op.abs(x))
    if kind == "SumSquare":
        return total(op.multiply(x, x))
    if dtype not in FLOATS or not all(isinstance(size, int) for size in counted):
        raise UnsupportedError(describe_node(node), f"works on {dtype}", "Use float32")
    if kind == "L2":
        return op.sqrt(total(op.multiply(x, x)))
    if kind == "LogSum":
        return op.log(total(x))
    # Of numbers less the largest, which then can't overflow; the largest may be infinite itself.
    largest = emit(op.max(x, axes, True))
    zero = scalar(0, dtype)
    largest = emit(op.where(op.isfinite(largest), largest, zero))
    log = op.log(op.sum(op.exp(op.subtract(x, largest)), axes, True))
    result = emit(op.add(log, largest))
    return result if keep else op.squeeze(result, axes)


def _arg_extreme(importer: Importer, node: NodeProto) -> None:
    check_dtype(importer, node, NUMBERS)
    attributes, sizes = importer.attributes(node), fixed_shape(importer, node)
    axis = axis_of(node, attributes["axis"], len(sizes))
    find = op.argmax if node.op_type == "ArgMax" else op.argmin
    x, keep = importer.expression(node.input[0]), bool(attributes["keepdims"])
    if not attributes.get("select_last_index", 0):
        return importer.define(node, find(x, axis, keep))
    position = find(op.flip(x, axis), axis, keep)  # The last is the first from the other end.
    return importer.define(node, op.subtract(literal(np.int64(sizes[axis] - 1)), position))


def _softmax(importer: Importer, node: NodeProto) -> None:
    """Along an axis; before operator set 13, over that axis and all behind it."""
    check_dtype(importer, node, FLOATS)
    attributes, sizes = importer.attributes(node), importer.shape(node.input[0])
    softmax = op.nn.softmax if node.op_type == "Softmax" else op.nn.log_softmax
    x = importer.expression(node.input[0])
    axis = axis_of(node, attributes["axis"], len(sizes), past=importer.opset < 13)
    if importer.opset >= 13 or axis == len(sizes) - 1:
        return importer.define(node, softmax(x, axis) if sizes else op.divide(x, x))
    flat = op.reshape(x, (math.prod(sizes[:axis]), math.prod(sizes[axis:])))
    return importer.define(node, op.reshape(softmax(flat, -1), sizes))


def _hardmax(importer: Importer, node: NodeProto) -> None:
    dtype = check_dtype(importer, node, FLOATS)
    attributes, sizes = importer.attributes(node), fixed_shape(importer, node)
    axis = axis_of(node, attributes["axis"], len(sizes), past=importer.opset < 13)
    shape = sizes
    if importer.opset < 13:
        shape, axis = [math.prod(sizes[:axis]), math.prod(sizes[axis:])], 1
    x = op.reshape(importer.expression(node.input[0]), shape)
    positions = np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    is_largest = op.equal(literal(positions), op.argmax(x, axis, True))
    importer.define(node, op.reshape(op.astype(is_largest, dtype), sizes))


def _cumsum(importer: Importer, node: NodeProto) -> None:
    dtype = check_dtype(importer, node, NUMBERS)
    attributes, sizes = importer.attributes(node), importer.shape(node.input[0])
    axis = axis_of(node, int(importer.parameter(node, 1, "axis").item()), len(sizes))
    x = importer.expression(node.input[0])
    if attributes["reverse"]:
        x = importer.builder.emit(op.flip(x, axis))
    result = op.cumsum(x, axis, dtype, bool(attributes["exclusive"]))
    importer.define(node, op.flip(result, axis) if attributes["reverse"] else result)


def _top_k(importer: Importer, node: NodeProto) -> None:
    check_dtype(importer, node, NUMBERS)
    attributes, sizes = importer.attributes(node), fixed_shape(importer, node)
    axis = axis_of(node, attributes["axis"], len(sizes))
    k = attributes["k"] if importer.opset < 10 else importer.parameter(node, 1, "k").item()
    attributes.get("sorted")  # In order is right where any order is.
    is_largest = bool(attributes["largest"]) if importer.opset >= 11 else True
    if not 1 <= k <= sizes[axis]:
        raise UnsupportedError(
            describe_node(node), f"takes {k} of {sizes[axis]}", "Export it again"
        )
    x = importer.expression(node.input[0])
    pair = importer.builder.emit(op.topk(x, k, axis, "both", is_largest, "int64"), node.name)
    for i, output in enumerate(node.output):
        if output:
            importer.define(node, relax.TupleGetItem(pair, i), i)


CONVERTERS: dict[str, Converter] = {
    **{
        f"Reduce{kind}": _reduce
        for kind in (
            *("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean"),
            *("Min", "Prod", "Sum", "SumSquare"),
        )
    },
    "ArgMax": _arg_extreme,
    "ArgMin": _arg_extreme,
    "CumSum": _cumsum,
    "Hardmax": _hardmax,
    "LogSoftmax": _softmax,
    "Softmax": _softmax,
    "TopK": _top_k,
}
