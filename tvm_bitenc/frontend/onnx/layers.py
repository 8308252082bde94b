"""Layers that need another spelling than TVM's importer gives them, for later passes to read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto
from tvm import relax

from ...errors import UnsupportedError
from .constants import literal
from .importer import Converter, Importer
from .model import describe_node
from .moves import narrow
from .shaping import fixed_shape
from .window import Window


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
    window = Window(importer, node, kernel[2:])
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
            bias = literal(bias.reshape(shape))
        else:
            bias = relax.op.reshape(importer.expression(node.input[2]), shape)
        layer = relax.op.add(layer, bias)
    importer.define(node, layer)


def _conv_transpose(importer: Importer, node: NodeProto) -> None:
    weight = importer.shape(node.input[1])
    window = Window(importer, node, weight[2:])
    spatial = len(window.kernel)
    if spatial not in (1, 2, 3):
        raise UnsupportedError(
            describe_node(node), f"has {spatial} spatial axes", "Use 1 to 3 spatial axes"
        )
    extra = window.integers("output_padding", [0] * spatial, 0)
    pads = _transposed_pads(importer, node, window, extra)
    dims = "DHW"[3 - spatial :]
    convolution = getattr(relax.op.nn, f"conv{spatial}d_transpose")(
        importer.operand(node.input[0], node),
        importer.operand(node.input[1], node),
        window.strides,
        [max(pad, 0) for pad in pads],
        extra,
        window.dilations,
        window.integer("group", 1),
        f"NC{dims}",
        f"IO{dims}",
    )
    widths = [0] * 4 + [max(-p, 0) for pair in zip(pads[:spatial], pads[spatial:]) for p in pair]
    if any(widths):  # Fewer than none: the result is wider than what the kernel reaches.
        convolution = relax.op.nn.pad(importer.builder.emit(convolution, node.name), widths)
    _with_bias(importer, node, convolution, spatial)


def _transposed_pads(
    importer: Importer, node: NodeProto, window: Window, extra: list[int]
) -> list[int]:
    """Pads of a transposed convolution, computed where its output's shape is what is stated."""
    mode = window.auto_pad
    if "output_shape" not in window.attributes and not mode.startswith("SAME"):
        return window.pads
    sizes = fixed_shape(importer, node)[2:]
    if "output_shape" in window.attributes:
        wanted = window.integers("output_shape", (), 1)
        window.attributes.get("pads")  # ONNX says that they are ignored.
    else:
        wanted = [size * stride for size, stride in zip(sizes, window.strides)]
    total = [
        stride * (size - 1) + out + extent - want
        for size, stride, out, extent, want in zip(
            sizes, window.strides, extra, window.extents, wanted
        )
    ]
    less = [t // 2 for t in total]
    more = [t - n for t, n in zip(total, less)]
    return less + more if mode == "SAME_UPPER" else more + less


# Names of Relax for ways to pad.
PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _pad(importer: Importer, node: NodeProto) -> None:
    """TVM's importer makes a TIR function of it, which no pass can read."""
    attributes = importer.attributes(node)
    mode, value = attributes.get("mode", b"constant").decode(), attributes.get("value", 0.0)
    pads, rank = attributes.get("pads"), len(importer.shape(node.input[0]))
    axes: Sequence[int] = range(rank)
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
    """Repeat along all axes."""
    repeats, sizes = importer.parameter(node, 1, "repeats").tolist(), importer.shape(node.input[0])
    if len(repeats) != len(sizes) or any(count < 1 for count in repeats):
        raise UnsupportedError(describe_node(node), f"repeats {repeats}", "Export the model again")
    importer.define(node, relax.op.tile(importer.expression(node.input[0]), repeats))


def _gemm(importer: Importer, node: NodeProto) -> None:
    """``alpha A B + beta C``: the factor goes behind the product, so that A stays quantized."""
    attributes = importer.attributes(node)
    a, b = (importer.operand(name, node) for name in node.input[:2])
    if attributes.get("transA", 0):
        a = importer.builder.emit(relax.op.permute_dims(a))
    if attributes.get("transB", 0):
        b = importer.builder.emit(relax.op.permute_dims(b))
    result = importer.builder.emit(relax.op.matmul(a, b), node.name)
    alpha, beta = (np.float32(attributes.get(name, 1)) for name in ("alpha", "beta"))
    if alpha != 1:
        scaled = relax.op.multiply(result, literal(alpha))
        result = importer.builder.emit(scaled, node.name)
    if len(node.input) > 2 and node.input[2]:
        importer.read_inputs.add(node.input[2])  # Times 0 it doesn't matter.
        if beta != 0:
            result = relax.op.add(result, _scaled(importer, node.input[2], beta))
    importer.define(node, result)


def _scaled(importer: Importer, name: str, factor: np.float32) -> relax.Expr:
    if name in importer.constants:
        return literal(importer.constants[name] * factor)
    expr = importer.expression(name)
    if factor == 1:
        return expr
    return importer.builder.emit(relax.op.multiply(expr, literal(factor)))


def _matmul(importer: Importer, node: NodeProto) -> None:
    importer.define(node, relax.op.matmul(*(importer.operand(name, node) for name in node.input)))


def _clip(importer: Importer, node: NodeProto) -> None:
    """Bounds one by one, as ops that later passes know; TVM's importer emits TE."""
    if narrow(importer, node):
        return
    attributes = importer.attributes(node)
    result = importer.expression(node.input[0])
    dtype = str(result.ty.dtype)
    for i, (name, op) in enumerate((("min", relax.op.maximum), ("max", relax.op.minimum)), 1):
        given = node.input[i] if i < len(node.input) else ""
        if given and given not in importer.constants:
            result = importer.builder.emit(op(result, importer.expression(given)), node.name)
            continue
        if given:
            bound = importer.constants[given]
        elif name in attributes:
            bound = np.asarray(attributes[name], dtype)
        else:
            continue
        if np.isnan(bound).any():
            raise UnsupportedError(describe_node(node), f"has {name} = NaN", "Leave it out")
        result = importer.builder.emit(op(result, literal(bound.reshape(()))), node.name)
    importer.define(node, result)


CONVERTERS: dict[str, Converter] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Pad": _pad,
    "Tile": _tile,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Clip": _clip,
}
