"""Products of integer tensors: `ConvInteger`, `MatMulInteger`, and what they share with QLinear*.

A product is that of the differences ``q - zero_point``, numbers of float32 whose quantizers have a
scale of 1: later passes make sums of branches of it. Its sums are integers of 32 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx import NodeProto
from tvm import relax

from ...bounds import INT32_MAX
from ...errors import UnsupportedError
from ...op.quantize import quantize
from . import layers
from .codes import step_grid
from .importer import Converter, Importer
from .model import describe_node

FLOAT_INTEGERS = 1 << 24  # Integers up to it are float32 numbers, whoever adds them up.


@dataclass(frozen=True)
class Operand:
    """Integers less their zero point.

    Parameters
    ----------
    steps : relax.Expr
        Of float32, on a grid of scale 1.
    most : int
        Largest absolute value.
    values : ndarray of int64, optional
        If they are constant.
    """

    steps: relax.Expr
    most: int
    values: np.ndarray | None = None


def operand(importer: Importer, node: NodeProto, name: str, zero_point: np.ndarray) -> Operand:
    """Return an operand of a node; zero points of an activation are one number.

    Parameters
    ----------
    zero_point : ndarray of int
        A scalar, or of a shape that broadcasts to that of a constant operand.
    """
    where = describe_node(node)
    if name in importer.constants:
        return _constant(importer, node, importer.constants[name], zero_point)
    if zero_point.size > 1:
        raise UnsupportedError(
            where, "its activations have several zero points", "Quantize activations per tensor"
        )
    zero, codes = int(zero_point.reshape(())), importer.codes.get(name)
    if codes is not None and codes.is_per_tensor and int(codes.grid.zero_point) == zero:
        most = max(codes.grid.high - zero, zero - codes.grid.low)
        return Operand(codes.steps(importer.builder), most)
    emit, integers = importer.builder.emit, importer.expression(name)
    grid = step_grid(str(integers.ty.dtype), zero, where)
    steps = emit(relax.op.astype(integers, "float32"))
    if zero:
        steps = emit(relax.op.subtract(steps, relax.const(np.float32(zero))))
    encoding, _ = grid.encoding(0, is_constant=True)
    most = max(grid.high - zero, zero - grid.low)
    return Operand(emit(quantize(steps, encoding, layer=node.name)), most)


def _constant(
    importer: Importer, node: NodeProto, integers: np.ndarray, zero_point: np.ndarray
) -> Operand:
    grid = step_grid(integers.dtype.name, zero_point, describe_node(node))
    grid.check_fits(integers.shape)
    values = integers.astype(np.int64) - zero_point
    steps = relax.const(values.astype(np.float32))
    if integers.size:
        encoding, axis = grid.narrowed(integers).encoding(values.ndim, is_constant=True)
        call = quantize(steps, encoding, axis, node.name)
        steps = importer.builder.emit(call, f"{node.name}_weight")
    return Operand(steps, int(np.abs(values).max(initial=0)), values)


def zero_point(importer: Importer, node: NodeProto, index: int, name: str) -> np.ndarray:
    """Return the constant zero point of the tensor `name`, 0 where the node states none."""
    if index >= len(node.input) or not node.input[index]:
        return np.zeros((), np.int64)
    found = importer.parameter(node, index, "zero point")
    dtype = dtype_of(importer, name)
    if found.dtype.name != dtype:
        raise UnsupportedError(
            describe_node(node),
            f"has a zero point of {found.dtype} for {dtype} codes",
            "Use one dtype",
        )
    return (found.reshape(()) if found.size == 1 else found).astype(np.int64)


def dtype_of(importer: Importer, name: str) -> str:
    """Dtype of a tensor that may be constant, codes or an expression."""
    if name in importer.constants:
        return importer.constants[name].dtype.name
    if name in importer.codes:
        return importer.codes[name].dtype
    return str(importer.expressions[name].ty.dtype)


def convolution(
    importer: Importer, node: NodeProto, x: Operand, weight: Operand, bias: np.ndarray | None = None
) -> relax.Expr:
    """Return the sums of a convolution, int32; a bias broadcasts to them."""
    product = layers.convolution(importer, node, x.steps, weight.steps)
    shape = [int(size) for size in weight.steps.ty.shape]
    is_lowered = weight.values is not None and len(shape) in (3, 4)
    return _sums(importer, node, product, (x, weight, shape[1:]), is_lowered, bias)


def matrix_product(
    importer: Importer, node: NodeProto, a: Operand, b: Operand, bias: np.ndarray | None = None
) -> relax.Expr:
    """Return the sums of a matrix product, int32."""
    (a, b), vectors = matrices(importer, [a, b])
    terms = [a.steps.ty.shape[-1]]
    product = relax.op.matmul(a.steps, b.steps)
    return squeezed(importer, _sums(importer, node, product, (a, b, terms), True, bias), vectors)


def matrices(importer: Importer, sides: Sequence[Operand]) -> tuple[list[Operand], list[int]]:
    """See vectors as a row and a column, for layers have matrices; also returns which are some."""
    found = list(sides)
    vectors = [i for i, side in enumerate(sides) if len(side.steps.ty.shape) == 1]
    for i in vectors:
        steps = importer.builder.emit(relax.op.expand_dims(sides[i].steps, i))
        values = sides[i].values
        column = None if values is None else np.expand_dims(values, i)
        found[i] = replace(sides[i], steps=steps, values=column)
    return found, vectors


def squeezed(importer: Importer, product: relax.Expr, vectors: Sequence[int]) -> relax.Expr:
    """Drop the axes that `matrices` added."""
    axes = [i - 2 for i in vectors]
    return importer.builder.emit(relax.op.squeeze(product, axes)) if vectors else product


def _sums(
    importer: Importer,
    node: NodeProto,
    product: relax.Call,
    operands: tuple[Operand, Operand, Sequence],
    is_lowered: bool,
    bias: np.ndarray | None,
) -> relax.Expr:
    a, b, terms = operands
    emit, count = importer.builder.emit, int(np.prod([int(n) for n in terms], dtype=object))
    bound = a.most * b.most * count
    most = INT32_MAX if is_lowered else FLOAT_INTEGERS
    if bound + (0 if bias is None else int(np.abs(bias.astype(np.int64)).max(initial=0))) > most:
        raise UnsupportedError(
            describe_node(node), f"its sums can exceed {most}", "Use fewer input channels"
        )
    sums = emit(relax.op.astype(emit(product, node.name), "int32"))
    if bias is not None and np.any(bias):
        sums = emit(relax.op.add(sums, relax.const(bias.astype(np.int32))))
    return sums


def _conv_integer(importer: Importer, node: NodeProto) -> None:
    x_name, w_name = node.input[:2]
    w_zero = per_channel(zero_point(importer, node, 3, w_name), len(importer.shape(w_name)), 0)
    weight = operand(importer, node, w_name, w_zero)
    moving = _zero_point_at_run_time(importer, node, 2)
    if moving is None:
        x = operand(importer, node, x_name, zero_point(importer, node, 2, x_name))
        importer.define(node, convolution(importer, node, x, weight))
        return
    if weight.values is None:
        raise UnsupportedError(
            describe_node(node), "neither its weight nor a zero point is constant", "Fix one"
        )
    x = operand(importer, node, x_name, np.zeros((), np.int64))
    sums = convolution(importer, node, x, weight)
    taps = _sums_of_taps(weight.values, layers.convolution(importer, node, x.steps, weight.steps))
    importer.define(node, _less(importer, sums, moving, relax.const(taps)))


def _less(importer: Importer, sums: relax.Expr, factor: relax.Expr, term: relax.Expr) -> relax.Expr:
    """``sums - factor * term``, in integers of 32 bits."""
    product = importer.builder.emit(relax.op.multiply(factor, term))
    return importer.builder.emit(relax.op.subtract(sums, product))


def _zero_point_at_run_time(importer: Importer, node: NodeProto, index: int) -> relax.Expr | None:
    """Return a zero point that isn't constant, int32 of rank 0."""
    name = node.input[index] if index < len(node.input) else ""
    if not name or name in importer.constants:
        return None
    found = importer.expression(name)
    if any(not isinstance(n, int) or n != 1 for n in importer.shape(name)):
        raise UnsupportedError(
            describe_node(node), "has several zero points at run time", "Quantize per tensor"
        )
    emit = importer.builder.emit
    return emit(relax.op.astype(emit(relax.op.reshape(found, ())), "int32"))


def _sums_of_taps(values: np.ndarray, product: relax.Call) -> np.ndarray:
    """Sum of a convolution's weights inside the image, int32 of (1, O, *output or ones)."""
    sums, attrs = values.sum(axis=1), product.attrs
    spatial = sums.ndim - 1
    sizes = list(product.args[0].ty.shape)[2:]
    for axis, size in enumerate(sizes):
        stride, dilation = int(attrs.strides[axis]), int(attrs.dilation[axis])
        before, after = int(attrs.padding[axis]), int(attrs.padding[axis + spatial])
        extent = (sums.shape[1] - 1) * dilation + 1
        outputs = np.arange(0, int(size) + before + after - extent + 1, stride)
        if not before and not after:
            outputs = outputs[:1]  # No window leaves the image.
        place = outputs + np.arange(sums.shape[1])[:, None] * dilation - before
        is_inside = ((place >= 0) & (place < int(size))).astype(np.int64)
        sums = np.tensordot(sums, is_inside, axes=(1, 0))  # The next axis comes to the front.
    return sums[None].astype(np.int32)


def _matmul_integer(importer: Importer, node: NodeProto) -> None:
    importer.define(node, integer_product(importer, node))


def integer_product(
    importer: Importer, node: NodeProto, zero_points: tuple[int, int] = (2, 3)
) -> relax.Expr:
    """Return the int32 sums of a matrix product whose zero points may come at run time.

    Parameters
    ----------
    zero_points : (int, int)
        Which inputs of the node they are.
    """
    names, zero = node.input[:2], np.zeros((), np.int64)
    moving = [_zero_point_at_run_time(importer, node, index) for index in zero_points]
    sides = []
    for name, index, at_run_time in zip(names, zero_points, moving):
        static = zero if at_run_time is not None else zero_point(importer, node, index, name)
        sides.append(operand(importer, node, name, static))
    # (a - za)(b - zb) = (a - za) b - zb times the sums of a, less those of za.
    (a, b), vectors = matrices(importer, sides)
    sums = matrix_product(importer, node, a, b)
    if moving[0] is not None:
        sums = _less(importer, sums, moving[0], _sums_along(importer, b, -2))
    if moving[1] is not None:
        rows = _sums_along(importer, a, -1)
        if moving[0] is not None:
            count = relax.const(int(a.steps.ty.shape[-1]), "int32")
            rows = _less(importer, rows, moving[0], count)
        sums = _less(importer, sums, moving[1], rows)
    return squeezed(importer, sums, vectors)


def _sums_along(importer: Importer, side: Operand, axis: int) -> relax.Expr:
    """Sums of an operand's integers along the axis that a matrix product sums over."""
    if side.values is not None:
        return relax.const(side.values.sum(axis=axis, keepdims=True).astype(np.int32))
    integers = importer.builder.emit(relax.op.astype(side.steps, "int32"))
    return importer.builder.emit(relax.op.sum(integers, axis, keepdims=True))


def per_channel(parameter: np.ndarray, rank: int, axis: int) -> np.ndarray:
    """Shape a parameter of one axis so that it broadcasts along `axis` of a tensor."""
    if parameter.ndim != 1:
        return parameter
    return parameter.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


CONVERTERS: dict[str, Converter] = {
    "ConvInteger": _conv_integer,
    "MatMulInteger": _matmul_integer,
}
