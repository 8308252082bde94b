"""Operators on int8: `QLinearConv`, `QLinearMatMul` and those of ONNX Runtime's domain.

Each has the arithmetic of ONNX Runtime's vector kernels, operation by operation in float32: sums
of 32 bits times one factor ``x_scale * w_scale / y_scale``, rounded half to even. QDQ models of the
same layers multiply in another order, which may differ at ties.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import tvm_ffi
from onnx import NodeProto
from tvm import relax

from ...errors import UnsupportedError
from ...op.multiply_add import fused_multiply_add, multiply_add
from . import pooling
from .codes import Codes, limits, step_grid
from .grid import Grid
from .importer import Converter, Importer
from .integer import (
    Operand,
    convolution,
    dtype_of,
    matrix_product,
    operand,
    per_channel,
    zero_point,
)
from .model import describe_node
from .moves import standing_for
from .reads import Attributes


def scale(importer: Importer, node: NodeProto, index: int) -> np.ndarray:
    """Return a constant scale, or several; one is a scalar."""
    found = importer.parameter(node, index, "scale")
    Grid(found, np.float32(0), 1, 0, 1, where=describe_node(node))  # Checks it.
    return found.reshape(()) if found.size == 1 else found


def single(parameter: np.ndarray, node: NodeProto, what: str) -> np.ndarray:
    """Refuse a parameter that isn't one number."""
    if parameter.size != 1:
        raise UnsupportedError(describe_node(node), f"has several {what}", "Quantize per tensor")
    return parameter


def _output_grid(importer: Importer, node: NodeProto, index: int, dtype: str) -> tuple[Grid, str]:
    """Grid of scale 1 and dtype of a node's output, by its zero point."""
    zero = np.zeros((), dtype)
    if index < len(node.input) and node.input[index]:
        zero = single(importer.parameter(node, index, "zero point"), node, "zero points")
    if zero.dtype.name not in ("int8", "uint8"):
        raise UnsupportedError(
            describe_node(node), f"makes {zero.dtype} codes", "Quantize to int8 or uint8"
        )
    dtype = zero.dtype.name
    return step_grid(dtype, zero.reshape(()).astype(np.int64), describe_node(node)), dtype


def _define(
    importer: Importer,
    node: NodeProto,
    steps: relax.Expr,
    index: int,
    first: str,
    is_early: bool = False,
) -> None:
    """Let the output be ``round(steps) + zero_point``, saturated.

    Parameters
    ----------
    index : int
        Which input is the zero point; without it, it is 0 of the dtype of the tensor `first`.
    is_early : bool
        The zero point is added before rounding: ties fall otherwise.
    """
    grid, dtype = _output_grid(importer, node, index, dtype_of(importer, first))
    grid = replace(grid, is_zero_point_late=not is_early)
    importer.codes[node.output[0]] = Codes(steps, grid, dtype, node.name)


def _rescaled(
    importer: Importer, node: NodeProto, sums: relax.Expr, factor: np.ndarray
) -> relax.Expr:
    """``float(sums) * factor``."""
    emit = importer.builder.emit
    real = emit(relax.op.astype(sums, "float32"))
    return emit(relax.op.multiply(real, relax.const(factor.astype(np.float32))), node.name)


def _qlinear_conv(importer: Importer, node: NodeProto) -> None:
    x_name, w_name, rank = node.input[0], node.input[3], len(importer.shape(node.input[3]))
    x_zero = single(zero_point(importer, node, 2, x_name), node, "zero points")
    x = operand(importer, node, x_name, x_zero)
    w_zero = per_channel(zero_point(importer, node, 5, w_name), rank, 0)
    weight = operand(importer, node, w_name, w_zero)
    bias = None
    if len(node.input) > 8 and node.input[8]:
        bias = importer.parameter(node, 8, "bias")
        bias = bias.reshape((1, -1, *[1] * (rank - 2)))
    x_scale, w_scale, y_scale = (scale(importer, node, i) for i in (1, 4, 6))
    factor = single(x_scale, node, "scales") * w_scale / single(y_scale, node, "scales")
    sums = convolution(importer, node, x, weight, bias)
    _define(
        importer, node, _rescaled(importer, node, sums, per_channel(factor, rank, 1)), 7, x_name
    )


def _qlinear_matmul(importer: Importer, node: NodeProto) -> None:
    sides, scales = [], []
    for i in (0, 3):
        name, rank = node.input[i], len(importer.shape(node.input[i]))
        zero = per_channel(zero_point(importer, node, i + 2, name), rank, -1)
        sides.append(operand(importer, node, name, zero))
        scales.append(scale(importer, node, i + 1))
    a_scale, y_scale = (single(s, node, "scales") for s in (scales[0], scale(importer, node, 6)))
    sums = matrix_product(importer, node, sides[0], sides[1])
    factor = a_scale * scales[1] / y_scale
    _define(importer, node, _rescaled(importer, node, sums, factor), 7, node.input[0])


def _qgemm(importer: Importer, node: NodeProto) -> None:
    """``(alpha a_scale b_scale / y_scale) (A B + C)``; without y_scale the result is float32."""
    attributes = importer.attributes(node)
    transposed = [bool(attributes.get(name, 0)) for name in ("transA", "transB")]
    sides = []
    for i, is_transposed in zip((0, 3), transposed):
        zero = zero_point(importer, node, i + 2, node.input[i])
        zero = per_channel(zero, 2, 0 if is_transposed else 1)
        side = operand(importer, node, node.input[i], zero)
        sides.append(_transposed(importer, side) if is_transposed else side)
    bias = None
    if len(node.input) > 6 and node.input[6]:
        bias = importer.parameter(node, 6, "C")
        bias = bias.reshape((1,) * (2 - bias.ndim) + bias.shape)
    alpha = np.float32(attributes.get("alpha", 1.0))
    a_scale = single(scale(importer, node, 1), node, "scales")
    factor = alpha * a_scale * scale(importer, node, 4)
    sums = matrix_product(importer, node, sides[0], sides[1], bias)
    if len(node.input) > 7 and node.input[7]:
        factor = factor / single(scale(importer, node, 7), node, "scales")
        _define(importer, node, _rescaled(importer, node, sums, factor), 8, node.input[0])
    else:
        importer.define(node, _rescaled(importer, node, sums, factor))


def _transposed(importer: Importer, side: Operand) -> Operand:
    steps = importer.builder.emit(relax.op.permute_dims(side.steps))
    return replace(side, steps=steps, values=None if side.values is None else side.values.T)


def _activation(importer: Importer, node: NodeProto, index: int) -> tuple[Operand, np.ndarray, int]:
    """Operand, scale and zero point of a tensor that three inputs of a node describe."""
    name = node.input[index]
    zero = single(zero_point(importer, node, index + 2, name), node, "zero points")
    found = operand(importer, node, name, zero)
    return found, single(scale(importer, node, index + 1), node, "scales"), int(zero)


def _qlinear_add(importer: Importer, node: NodeProto) -> None:
    """``round(a ra + (b rb + shift))`` of codes a and b, by multiply-adds that round once.

    So does ONNX Runtime with tensors of one shape; where it repeats one, it may begin with the
    other, and a sum that is nearly a tie may differ.
    """
    (a, a_scale, a_zero), (b, b_scale, b_zero) = (_activation(importer, node, i) for i in (0, 3))
    c_scale = single(scale(importer, node, 6), node, "scales")
    grid, _ = _output_grid(importer, node, 7, dtype_of(importer, node.input[0]))
    ra, rb = a_scale / c_scale, b_scale / c_scale
    zeros = fused_multiply_add(ra, np.float32(a_zero), rb * np.float32(b_zero))
    emit, codes = importer.builder.emit, (_codes(importer, a, a_zero), _codes(importer, b, b_zero))
    first, second = _broadcast(importer, codes)
    ones = (1,) * len(first.ty.shape)
    ra, rb, shift = (
        relax.const(np.full(ones, value, np.float32)) for value in (ra, rb, grid.zero_point - zeros)
    )
    total = emit(multiply_add(first, ra, emit(multiply_add(second, rb, shift))), node.name)
    code = emit(relax.op.round(total))
    _define(importer, node, emit(relax.op.subtract(code, relax.const(grid.zero_point))), 7,
            node.input[0])  # fmt: skip


def _codes(importer: Importer, side: Operand, zero: int) -> relax.Expr:
    """Integers of an operand with their zero point, float32."""
    if not zero:
        return side.steps
    return importer.builder.emit(relax.op.add(side.steps, relax.const(np.float32(zero))))


def _broadcast(importer: Importer, tensors: Sequence[relax.Expr]) -> list[relax.Expr]:
    """Repeat tensors along axes of size 1, so that they have one shape."""
    shapes = [tensor.ty.shape for tensor in tensors]
    if tvm_ffi.structural_equal(*shapes):
        return list(tensors)
    emit = importer.builder.emit
    shape = emit(relax.op.add(*tensors)).ty.shape
    return [emit(relax.op.broadcast_to(tensor, shape)) for tensor in tensors]


def _qlinear_mul(importer: Importer, node: NodeProto) -> None:
    (a, a_scale, _), (b, b_scale, _) = (_activation(importer, node, i) for i in (0, 3))
    factor = a_scale * b_scale / single(scale(importer, node, 6), node, "scales")
    emit = importer.builder.emit
    product = emit(relax.op.multiply(a.steps, b.steps))
    steps = emit(relax.op.multiply(product, relax.const(factor)), node.name)
    _define(importer, node, steps, 7, node.input[0], is_early=True)


def _qlinear_concat(importer: Importer, node: NodeProto) -> None:
    emit, y_scale = importer.builder.emit, single(scale(importer, node, 0), node, "scales")
    parts = []
    for index in range(2, len(node.input), 3):
        part, part_scale, _ = _activation(importer, node, index)
        real = emit(relax.op.multiply(part.steps, relax.const(part_scale)))
        parts.append(emit(relax.op.divide(real, relax.const(y_scale))))
    axis = importer.attributes(node).get("axis", 0)
    joined = emit(relax.op.concat(parts, axis), node.name)
    _define(importer, node, joined, 1, node.input[2])


def _global_average_pool(importer: Importer, node: NodeProto) -> None:
    x, x_scale, _ = _activation(importer, node, 0)
    rank, y_scale = len(x.steps.ty.shape), single(scale(importer, node, 3), node, "scales")
    axes = list(
        range(1, rank - 1) if importer.attributes(node).get("channels_last", 0) else range(2, rank)
    )
    sizes = [x.steps.ty.shape[axis] for axis in axes]
    count = int(np.prod([int(size) for size in sizes]))
    emit = importer.builder.emit
    sums = emit(relax.op.sum(emit(relax.op.astype(x.steps, "int32")), axes, keepdims=True))
    factor = x_scale / (y_scale * np.float32(count))
    _define(importer, node, _rescaled(importer, node, sums, factor), 4, node.input[0])


def _average_pool(importer: Importer, node: NodeProto) -> None:
    """Average real numbers, as ONNX Runtime does."""
    if importer.attributes(node).get("channels_last", 0):
        raise UnsupportedError(describe_node(node), "has channels last", "Export it as NCHW")
    x, x_scale, _ = _activation(importer, node, 0)
    y_scale = single(scale(importer, node, 3), node, "scales")
    emit, pool = importer.builder.emit, NodeProto()
    pool.CopyFrom(node)
    pool.op_type, pool.domain = "AveragePool", ""
    del pool.input[1:]
    real = emit(relax.op.multiply(x.steps, relax.const(x_scale)))
    with standing_for(importer, node.input[0], real):
        pooling.pool(importer, pool)
    average = importer.expressions.pop(node.output[0])
    steps = emit(relax.op.divide(average, relax.const(y_scale)), node.name)
    _define(importer, node, steps, 4, node.input[0], is_early=True)


def _by_table(function: Callable[[np.ndarray, Attributes], np.ndarray]) -> Converter:
    """Return the converter of a function of one number: a table has the code of each code."""

    def convert(importer: Importer, node: NodeProto) -> None:
        x, x_scale, zero = _activation(importer, node, 0)
        y_scale = single(scale(importer, node, 3), node, "scales")
        attributes = importer.attributes(node)
        _, low, high = limits(dtype_of(importer, node.input[0]))
        real = np.arange(low - zero, high - zero + 1).astype(np.float32) * x_scale
        with np.errstate(all="ignore"):
            table = relax.const(np.rint(function(real, attributes) / y_scale))
        emit = importer.builder.emit
        position = _codes(importer, x, zero - low)
        position = emit(relax.op.astype(position, "int32"))
        steps = emit(relax.op.take(table, position, 0, "clip"), node.name)
        _define(importer, node, steps, 4, node.input[0])

    return convert


def _leaky_relu(x: np.ndarray, attributes: Attributes) -> np.ndarray:
    return np.where(x >= 0, x, x * np.float32(attributes.get("alpha", 0.01)))


def _sigmoid(x: np.ndarray, _attributes: Attributes) -> np.ndarray:
    return (1 / (1 + np.exp(-x.astype(np.float64)))).astype(np.float32)


CONVERTERS: dict[str, Converter] = {
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
}
MICROSOFT_CONVERTERS: dict[str, Converter] = {
    "QGemm": _qgemm,
    "QLinearAdd": _qlinear_add,
    "QLinearMul": _qlinear_mul,
    "QLinearConcat": _qlinear_concat,
    "QLinearGlobalAveragePool": _global_average_pool,
    "QLinearAveragePool": _average_pool,
    "QLinearLeakyRelu": _by_table(_leaky_relu),
    "QLinearSigmoid": _by_table(_sigmoid),
}
