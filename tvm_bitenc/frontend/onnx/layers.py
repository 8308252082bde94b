"""Layers that need another spelling than TVM's importer gives them, for later passes to read."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper
from tvm import relax

from ...errors import UnsupportedError
from .importer import Converter, Importer
from .model import describe_node
from .moves import narrow

_SAME = (b"SAME_UPPER", b"SAME_LOWER")
_MOST = 2**20  # Of a stride or the like: beyond, int32 index arithmetic may overflow.


def _conv(importer: Importer, node: NodeProto) -> None:
    layer = convolution(importer, node, *(importer.operand(name, node) for name in node.input[:2]))
    _with_bias(importer, node, layer, len(layer.attrs.strides))


def convolution(
    importer: Importer, node: NodeProto, x: relax.Expr, weight: relax.Expr
) -> relax.Call:
    """Return the convolution that a node asks for, on operands that stand for its own."""
    kernel = [int(size) for size in weight.ty.shape]
    spatial = len(x.ty.shape) - 2
    if spatial not in (1, 2, 3) or len(kernel) != spatial + 2:
        raise UnsupportedError(
            describe_node(node), f"has an input of {spatial + 2} axes", "Use 1 to 3 spatial axes"
        )
    window = _Window(importer, node, kernel[2:])
    dims = "DHW"[3 - spatial :]
    return getattr(relax.op.nn, f"conv{spatial}d")(
        x,
        weight,
        window.strides,
        window.pads,
        window.dilations,
        window.integer("group", 1),
        f"NC{dims}",
        f"OI{dims}",
    )


def _with_bias(importer: Importer, node: NodeProto, layer: relax.Call, spatial: int) -> None:
    if len(node.input) > 2 and node.input[2]:
        layer = importer.builder.emit(layer, node.name)
        bias = importer.constants.get(node.input[2])
        shape = (1, -1, *[1] * spatial)
        if bias is not None:
            bias = relax.const(bias.reshape(shape))
        else:
            bias = relax.op.reshape(importer.expression(node.input[2]), shape)
        layer = relax.op.add(layer, bias)
    importer.define(node, layer)


def _conv_transpose(importer: Importer, node: NodeProto) -> None:
    window = _Window(importer, node, importer.shape(node.input[1])[2:])
    spatial = len(window.kernel)
    if spatial not in (1, 2):
        raise UnsupportedError(
            describe_node(node), f"has {spatial} spatial axes", "Use 1 or 2 spatial axes"
        )
    if "output_shape" in window.attributes or window.attributes.get("auto_pad") in _SAME:
        raise UnsupportedError(
            describe_node(node), "leaves its pads to be computed", "State pads and output_padding"
        )
    dims = "HW"[2 - spatial :]
    convolution = getattr(relax.op.nn, f"conv{spatial}d_transpose")(
        importer.operand(node.input[0], node),
        importer.operand(node.input[1], node),
        window.strides,
        window.pads,
        window.integers("output_padding", [0] * spatial, 0),
        window.dilations,
        window.integer("group", 1),
        f"NC{dims}",
        f"IO{dims}",
    )
    _with_bias(importer, node, convolution, spatial)


# Names of Relax for ways to pad.
PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _pad(importer: Importer, node: NodeProto) -> None:
    """TVM's importer makes a TIR function of it, which no pass can read."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    mode, value = attributes.get("mode", b"constant").decode(), attributes.get("value", 0.0)
    pads, rank = attributes.get("pads"), len(importer.shape(node.input[0]))
    axes = range(rank)
    if importer.opset >= 11:
        pads = importer.parameter(node, 1, "pads").tolist()
        if len(node.input) > 2 and node.input[2]:
            value = importer.parameter(node, 2, "padding value").item()
        if len(node.input) > 3 and node.input[3]:
            axes = [int(axis) % rank for axis in importer.parameter(node, 3, "axes")]
    if mode not in PAD_MODES or pads is None or len(pads) != 2 * len(axes):
        raise UnsupportedError(
            describe_node(node), f"pads by {pads} in mode {mode!r}", f"Use one of {[*PAD_MODES]}"
        )
    widths = [0] * (2 * rank)
    for i, axis in enumerate(axes):
        widths[2 * axis], widths[2 * axis + 1] = pads[i], pads[i + len(axes)]
    x = importer.expression(node.input[0])
    importer.define(node, relax.op.nn.pad(x, widths, PAD_MODES[mode], float(value)))


def _tile(importer: Importer, node: NodeProto) -> None:
    if node.input[1] not in importer.constants:
        return importer.convert(node)
    repeats = importer.constants[node.input[1]].tolist()
    return importer.define(node, relax.op.tile(importer.expression(node.input[0]), repeats))


def pool(importer: Importer, node: NodeProto) -> None:
    """Convert a pooling over windows."""
    window = _Window(importer, node, None)
    importer.convert(
        node,
        kernel_shape=window.kernel,
        strides=window.strides,
        pads=window.pads,
        dilations=window.dilations,
        auto_pad=b"NOTSET",
    )


class _Window:
    """Kernel size, strides, dilations and pads of a node, one number per spatial axis, checked."""

    def __init__(self, importer: Importer, node: NodeProto, kernel: list[int] | None):
        self.node = node
        self.attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        sizes = importer.shape(node.input[0])[2:]
        self.rank = len(sizes)
        self.kernel = self.integers("kernel_shape", [] if kernel is None else kernel, 1)
        if kernel is not None and list(kernel) != self.kernel:
            raise self._error("kernel_shape", self.kernel, f"its weight has {kernel}")
        self.strides = self.integers("strides", [1] * self.rank, 1)
        self.dilations = self.integers("dilations", [1] * self.rank, 1)
        self.extents = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations)]
        self.pads = self._pads(sizes)
        if node.op_type != "ConvTranspose":
            self._check_output(sizes)

    def integer(self, name: str, default: int) -> int:
        """Return an attribute that is a positive integer."""
        value = self.attributes.get(name, default)
        if not 1 <= value <= _MOST:
            raise self._error(name, value, "not positive")
        return value

    def integers(self, name: str, default, least: int, count: int | None = None) -> list[int]:
        """Return an attribute of several integers, by default one per spatial axis."""
        count = self.rank if count is None else count
        values = [int(v) for v in self.attributes.get(name, default)]
        if len(values) != count or any(not least <= v <= _MOST for v in values):
            raise self._error(name, values, f"expected {count} integers from {least}")
        return values

    def _pads(self, sizes: list[int]) -> list[int]:
        mode = self.attributes.get("auto_pad", b"NOTSET")
        if mode not in (b"NOTSET", b"VALID", *_SAME):
            raise self._error("auto_pad", mode, "unknown")
        if mode in _SAME and self.node.op_type != "ConvTranspose":
            return self._same(sizes, mode == b"SAME_LOWER")
        none = [0] * 2 * self.rank
        return none if mode == b"VALID" else self.integers("pads", none, 0, 2 * self.rank)

    def _same(self, sizes: list[int], extra_first: bool) -> list[int]:
        """Pads that make the output ``ceil(size / stride)``; an odd one goes to one end."""
        if not all(isinstance(size, int) for size in sizes):
            raise self._error("auto_pad", self.attributes["auto_pad"], "needs fixed shapes")
        total = [
            max((-(-size // stride) - 1) * stride + extent - size, 0)
            for size, stride, extent in zip(sizes, self.strides, self.extents)
        ]
        less, more = [t // 2 for t in total], [t - t // 2 for t in total]
        return more + less if extra_first else less + more

    def _check_output(self, sizes: list[int]) -> None:
        """Refuse a window that is larger than its padded input."""
        pads = [a + b for a, b in zip(self.pads, self.pads[len(sizes) :])]
        for size, pad, extent in zip(sizes, pads, self.extents):
            if isinstance(size, int) and size + pad < extent:
                raise self._error("kernel_shape", self.kernel, f"its input is {sizes}")

    def _error(self, name: str, value, cause: str) -> UnsupportedError:
        return UnsupportedError(
            describe_node(self.node), f"has {name} {value}: {cause}", "Export the model again"
        )


def _gemm(importer: Importer, node: NodeProto) -> None:
    """``alpha A B + beta C``: the factor goes behind the product, so that A stays quantized."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    a, b = (importer.operand(name, node) for name in node.input[:2])
    if attributes.get("transA", 0):
        a = importer.builder.emit(relax.op.permute_dims(a))
    if attributes.get("transB", 0):
        b = importer.builder.emit(relax.op.permute_dims(b))
    result = importer.builder.emit(relax.op.matmul(a, b), node.name)
    alpha, beta = (np.float32(attributes.get(name, 1)) for name in ("alpha", "beta"))
    if alpha != 1:
        scaled = relax.op.multiply(result, relax.const(alpha))
        result = importer.builder.emit(scaled, node.name)
    if len(node.input) > 2 and node.input[2] and beta != 0:
        result = relax.op.add(result, _scaled(importer, node.input[2], beta))
    importer.define(node, result)


def _scaled(importer: Importer, name: str, factor: np.float32) -> relax.Expr:
    if name in importer.constants:
        return relax.const(importer.constants[name] * factor)
    expr = importer.expression(name)
    if factor == 1:
        return expr
    return importer.builder.emit(relax.op.multiply(expr, relax.const(factor)))


def _matmul(importer: Importer, node: NodeProto) -> None:
    importer.define(node, relax.op.matmul(*(importer.operand(name, node) for name in node.input)))


def _batch_normalization(importer: Importer, node: NodeProto) -> None:
    """``x * factor + shift`` in float32, the two computed first: ONNX Runtime's own numbers."""
    where = describe_node(node)
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if attributes.get("training_mode", 0) or len([o for o in node.output if o]) > 1:
        raise UnsupportedError(where, "is in training mode", "Export the model in eval mode")
    names = ("scale", "bias", "mean", "variance")
    gamma, bias, mean, variance = (
        importer.parameter(node, i, name).astype(np.float32) for i, name in enumerate(names, 1)
    )
    epsilon = np.float32(attributes.get("epsilon", 1e-5))
    with np.errstate(all="ignore"):
        factor = gamma * (1 / np.sqrt(variance + epsilon))
        shift = bias - mean * factor
    if not (np.isfinite(factor).all() and np.isfinite(shift).all()):
        raise UnsupportedError(where, "divides by zero or has NaN inside", "Train it again")
    shape = (1, -1, *[1] * (len(importer.shape(node.input[0])) - 2))
    factor, shift = (relax.const(value.reshape(shape)) for value in (factor, shift))
    scaled = relax.op.multiply(importer.expression(node.input[0]), factor)
    importer.define(node, relax.op.add(importer.builder.emit(scaled, node.name), shift))


def _clip(importer: Importer, node: NodeProto) -> None:
    """Bounds one by one, as ops that later passes know; TVM's importer emits TE."""
    if narrow(importer, node):
        return
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    result = importer.expression(node.input[0])
    dtype = str(result.ty.dtype)
    for i, (name, op) in enumerate((("min", relax.op.maximum), ("max", relax.op.minimum)), 1):
        if i < len(node.input) and node.input[i]:
            bound = importer.parameter(node, i, name)
        elif name in attributes:
            bound = np.asarray(attributes[name], dtype)
        else:
            continue
        if np.isnan(bound).any():
            raise UnsupportedError(describe_node(node), f"has {name} = NaN", "Leave it out")
        result = importer.builder.emit(op(result, relax.const(bound.reshape(()))), node.name)
    importer.define(node, result)


def _reshaped(importer: Importer, node: NodeProto) -> None:
    """Reshape, which later passes look through; shapes must be fixed for that."""
    importer.convert(node)
    result = importer.expressions[node.output[0]]
    sizes = importer.shape(node.output[0]) if isinstance(result.ty, relax.TensorType) else [None]
    if all(isinstance(size, int) for size in sizes):
        importer.define(node, relax.op.reshape(importer.expression(node.input[0]), sizes))


CONVERTERS: dict[str, Converter] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Pad": _pad,
    "Tile": _tile,
    "MaxPool": pool,
    "AveragePool": pool,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_normalization,
    "Clip": _clip,
    "Squeeze": _reshaped,
    "Unsqueeze": _reshaped,
}
