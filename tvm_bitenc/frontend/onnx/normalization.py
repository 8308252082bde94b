"""Normalizations: of batches, layers, instances and neighbouring channels."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto
from tvm import relax
from tvm.relax import op

from ...errors import UnsupportedError
from .constants import literal
from .elementwise import FLOATS, check_dtype, scalar
from .importer import Converter, Importer
from .model import describe_node
from .shaping import axis_of, fixed_shape


def _batch_normalization(importer: Importer, node: NodeProto) -> None:
    """``x * factor + shift`` in float32, the two computed first: ONNX Runtime's own numbers."""
    where = describe_node(node)
    attributes = importer.attributes(node)
    if attributes.get("training_mode", 0) or len([o for o in node.output if o]) > 1:
        raise UnsupportedError(where, "is in training mode", "Export the model in eval mode")
    names = ("scale", "bias", "mean", "variance")
    attributes.get("momentum"), attributes.get("spatial")
    if any(name not in importer.constants for name in node.input[1:5]):
        return _normalize_at_run_time(importer, node, np.float32(attributes["epsilon"]))
    gamma, bias, mean, variance = (
        importer.parameter(node, i, name).astype(np.float32) for i, name in enumerate(names, 1)
    )
    epsilon = np.float32(attributes["epsilon"])
    with np.errstate(all="ignore"):
        factor = gamma * (1 / np.sqrt(variance + epsilon))
        shift = bias - mean * factor
    if not (np.isfinite(factor).all() and np.isfinite(shift).all()):
        raise UnsupportedError(where, "divides by zero or has NaN inside", "Train it again")
    shape = (1, -1, *[1] * (len(importer.shape(node.input[0])) - 2))
    factor, shift = (literal(value.reshape(shape)) for value in (factor, shift))
    scaled = op.multiply(importer.expression(node.input[0]), factor)
    return importer.define(node, op.add(importer.builder.emit(scaled, node.name), shift))


def _normalize_at_run_time(importer: Importer, node: NodeProto, epsilon: np.float32) -> None:
    dtype, rank = check_dtype(importer, node, FLOATS), len(importer.shape(node.input[0]))
    gamma, bias, mean, variance = (
        op.reshape(importer.expression(name), (1, -1, *[1] * (rank - 2))) for name in node.input[1:]
    )
    deviation = op.sqrt(op.add(variance, scalar(epsilon, dtype)))
    centered = op.subtract(importer.expression(node.input[0]), mean)
    scaled = op.multiply(op.divide(centered, deviation), gamma)
    importer.define(node, op.add(scaled, bias))


def _layer_normalization(importer: Importer, node: NodeProto) -> None:
    dtype, attributes = check_dtype(importer, node, ("float32",)), importer.attributes(node)
    sizes = fixed_shape(importer, node)
    axis = axis_of(node, attributes["axis"], len(sizes))
    axes, epsilon = list(range(axis, len(sizes))), attributes["epsilon"]
    attributes.get("stash_type")  # Of float32 it says float32 at least, which is all there is.
    x, gamma = importer.expression(node.input[0]), importer.expression(node.input[1])
    beta = importer.optional(node, 2)
    if any(o for o in node.output[1:]) or importer.shape(node.input[1]) != sizes[axis:]:
        return _layer_with_statistics(importer, node, axes, epsilon)
    beta = literal(np.zeros(sizes[axis:], dtype)) if beta is None else beta
    if [int(n) for n in beta.ty.shape] != sizes[axis:]:
        return _layer_with_statistics(importer, node, axes, epsilon)
    return importer.define(node, op.nn.layer_norm(x, gamma, beta, axes, epsilon))


def _layer_with_statistics(
    importer: Importer, node: NodeProto, axes: list[int], epsilon: float
) -> None:
    """Spelled out, with the mean and the inverse of the deviation as outputs."""
    emit, x, dtype = importer.builder.emit, importer.expression(node.input[0]), "float32"
    mean = emit(op.mean(x, axes, True))
    centered = emit(op.subtract(x, mean))
    variance = op.mean(op.multiply(centered, centered), axes, True)
    inverse = op.divide(scalar(1, dtype), op.sqrt(op.add(variance, scalar(epsilon, dtype))))
    inverse = emit(inverse)
    result = op.multiply(op.multiply(centered, inverse), importer.expression(node.input[1]))
    bias = importer.optional(node, 2)
    importer.define(node, result if bias is None else op.add(result, bias))
    for i, statistic in ((1, mean), (2, inverse)):
        if i < len(node.output) and node.output[i]:
            importer.define(node, statistic, i)


def _instance_normalization(importer: Importer, node: NodeProto) -> None:
    dtype, rank = check_dtype(importer, node, FLOATS), len(importer.shape(node.input[0]))
    emit, axes = importer.builder.emit, list(range(2, rank))
    epsilon = scalar(importer.attributes(node)["epsilon"], dtype)
    x = importer.expression(node.input[0])
    centered = emit(op.subtract(x, op.mean(x, axes, True)))
    variance = op.mean(op.multiply(centered, centered), axes, True)
    gamma, beta = (
        op.reshape(importer.expression(name), (-1, *[1] * (rank - 2))) for name in node.input[1:]
    )
    normal = op.divide(centered, op.sqrt(op.add(variance, epsilon)))
    importer.define(node, op.add(op.multiply(normal, gamma), beta))


_MOST_NEIGHBOURS = 64


def _local_response(importer: Importer, node: NodeProto) -> None:
    """Divide by a power of the mean square of the channels around."""
    dtype, attributes = check_dtype(importer, node, FLOATS), importer.attributes(node)
    sizes, size = fixed_shape(importer, node), attributes["size"]
    if not 1 <= size <= _MOST_NEIGHBOURS or len(sizes) < 2:
        raise UnsupportedError(describe_node(node), f"looks at {size} channels", "Use 1 to 64")
    before, channels, emit = (size - 1) // 2, sizes[1], importer.builder.emit
    x = importer.expression(node.input[0])
    widths = [0, 0, before, size - 1 - before, *[0] * (2 * len(sizes) - 4)]
    squares = emit(op.nn.pad(op.multiply(x, x), widths, "constant", 0.0))
    total: relax.Expr | None = None
    for i in range(size):
        part = op.strided_slice(squares, [1], [i], [i + channels])
        total = part if total is None else emit(op.add(total, part))
    alpha, beta, bias = (attributes[name] for name in ("alpha", "beta", "bias"))
    mean = op.add(op.multiply(total, scalar(alpha / size, dtype)), scalar(bias, dtype))
    importer.define(node, op.divide(x, op.power(mean, scalar(beta, dtype))))


CONVERTERS: dict[str, Converter] = {
    "BatchNormalization": _batch_normalization,
    "InstanceNormalization": _instance_normalization,
    "LRN": _local_response,
    "LayerNormalization": _layer_normalization,
}
