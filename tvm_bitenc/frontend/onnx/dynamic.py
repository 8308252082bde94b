"""Dynamic quantization: codes of 8 bits whose scale and zero point come from the tensor at hand.

`DynamicQuantizeLinear`, and what ONNX Runtime fuses with the layer behind it. The codes are on a
grid of scale 1 without a zero point, which is the same for every tensor: layers run on integers.
What the zero point adds is a product with the sums of the weights, see `integer.py`.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto
from tvm import relax

from ...errors import UnsupportedError
from .codes import Codes, step_grid
from .importer import Converter, Importer
from .integer import integer_product
from .model import describe_node
from .qlinear import scale


def _dynamic_quantize_linear(importer: Importer, node: NodeProto) -> None:
    codes, y_scale, zero_point = _quantized(importer, node)
    importer.codes[node.output[0]] = codes
    importer.define(node, y_scale, 1)
    importer.define(node, importer.builder.emit(relax.op.astype(zero_point, "uint8")), 2)


def _quantized(importer: Importer, node: NodeProto) -> tuple[Codes, relax.Expr, relax.Expr]:
    """Codes of a node's first input, their scale and zero point, float32 of rank 0.

    In the order of ONNX Runtime: the range is stretched to contain 0, and a tensor of zeros has
    the scale 1.
    """
    emit, x = importer.builder.emit, importer.expression(node.input[0])
    if str(x.ty.dtype) != "float32":
        raise UnsupportedError(describe_node(node), f"quantizes {x.ty.dtype}", "Use float32")
    zero, one = (relax.const(np.float32(value)) for value in (0, 1))
    low = emit(relax.op.minimum(emit(relax.op.min(x)), zero))
    high = emit(relax.op.maximum(emit(relax.op.max(x)), zero))
    step = emit(relax.op.divide(emit(relax.op.subtract(high, low)), relax.const(np.float32(255))))
    y_scale = emit(relax.op.where(emit(relax.op.equal(high, low)), one, step))
    start = emit(relax.op.subtract(zero, emit(relax.op.divide(low, y_scale))))
    bounded = emit(
        relax.op.minimum(emit(relax.op.maximum(start, zero)), relax.const(np.float32(255)))
    )
    zero_point = emit(relax.op.round(bounded))
    steps = emit(relax.op.round(emit(relax.op.divide(x, y_scale))))
    position = emit(relax.op.add(steps, zero_point))
    grid = step_grid("uint8", 0, describe_node(node))
    return Codes(position, grid, "uint8", node.name), y_scale, zero_point


def _dynamic_quantize_matmul(importer: Importer, node: NodeProto) -> None:
    """DynamicQuantizeLinear of A, then MatMulIntegerToFloat: A, B, b_scale, b_zero_point, bias."""
    codes, a_scale, zero_point = _quantized(importer, node)
    name, a, a_zero = node.name, f"{node.name}/codes", f"{node.name}/zero_point"
    importer.codes[a] = codes
    importer.expressions[a_zero] = importer.builder.emit(relax.op.astype(zero_point, "uint8"))
    product = NodeProto(op_type=node.op_type, name=name, output=node.output)
    product.input.extend([a, *node.input[1:2], a_zero, *node.input[3:4]])
    sums = integer_product(importer, product)
    factor = importer.builder.emit(
        relax.op.multiply(a_scale, relax.const(scale(importer, node, 2)))
    )
    _define_float(importer, node, sums, factor, 4)


def _matmul_integer_to_float(importer: Importer, node: NodeProto) -> None:
    """A, B, a_scale, b_scale, a_zero_point, b_zero_point, bias."""
    sums = integer_product(importer, node, zero_points=(4, 5))
    factor = importer.builder.emit(
        relax.op.multiply(*(importer.expression(name) for name in node.input[2:4]))
    )
    _define_float(importer, node, sums, factor, 6)


def _define_float(
    importer: Importer, node: NodeProto, sums: relax.Expr, factor: relax.Expr, bias: int
) -> None:
    emit = importer.builder.emit
    real = emit(relax.op.multiply(emit(relax.op.astype(sums, "float32")), factor), node.name)
    if bias < len(node.input) and node.input[bias]:
        real = emit(relax.op.add(real, importer.expression(node.input[bias])))
    importer.define(node, real)


CONVERTERS: dict[str, Converter] = {"DynamicQuantizeLinear": _dynamic_quantize_linear}
MICROSOFT_CONVERTERS: dict[str, Converter] = {
    "DynamicQuantizeMatMul": _dynamic_quantize_matmul,
    "MatMulIntegerToFloat": _matmul_integer_to_float,
}
