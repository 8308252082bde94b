"""QONNX: `Quant`, `BipolarQuant` and `Trunc`, with the numbers of the QONNX executor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import NodeProto
from tvm import relax

from ...errors import UnsupportedError
from ...op.quantize import quantize
from .constants import literal
from .grid import MAX_BITS, Grid
from .importer import Converter, Importer
from .model import describe_node

# QONNX's names; ROUND_TO_ZERO is what Brevitas calls DOWN.
_ROUNDINGS = {
    "ROUND": "half_even",
    "HALF_EVEN": "half_even",
    "FLOOR": "floor",
    "CEIL": "ceil",
    "DOWN": "toward_zero",
    "ROUND_TO_ZERO": "toward_zero",
    "UP": "away_from_zero",
    "HALF_UP": "half_away_from_zero",
    "HALF_DOWN": "half_toward_zero",
}
_MAX_CONSTANT_BITS = 32


def _quant(importer: Importer, node: NodeProto) -> None:
    scale, zero_point = (
        importer.parameter(node, i, what) for i, what in ((1, "scale"), (2, "zero point"))
    )
    bits = _bits(importer, node, 3)
    attributes = _attributes(importer, node, ("signed", "narrow"))
    _define(importer, node, _grid(scale, zero_point, bits, attributes, describe_node(node)))


def _bipolar_quant(importer: Importer, node: NodeProto) -> None:
    scale = importer.parameter(node, 1, "scale")
    zero = np.float32(0)
    grid = Grid(scale, zero, 1, -1, 1, rounding="sign", where=describe_node(node))
    _define(importer, node, grid)


def _grid(
    scale: np.ndarray, zero_point: np.ndarray, bits: int, attributes: dict, where: str
) -> Grid:
    rounding = _rounding(attributes, "ROUND", where)
    if bits == 1 and attributes["signed"]:
        if np.any(zero_point):
            raise UnsupportedError(
                where, "has 1 signed bit and a zero point", "Use zero point 0, or BipolarQuant"
            )
        return Grid(scale, zero_point, 1, -1, 1, rounding="sign", where=where)
    return Grid(scale, zero_point, bits, *_range(bits, attributes, where), rounding, where=where)


def _range(bits: int, attributes: dict, where: str) -> tuple[int, int]:
    """Smallest and largest integer."""
    narrow = int(attributes["narrow"])
    if attributes["signed"]:
        low, high = narrow - 2 ** (bits - 1), 2 ** (bits - 1) - 1
    else:
        low, high = 0, 2**bits - 1 - narrow
    if high == low:
        raise UnsupportedError(where, "has a single level", "Use more bits")
    return low, high


def _define(importer: Importer, node: NodeProto, grid: Grid) -> None:
    """Define the output as the input rounded to a grid."""
    x, output = node.input[0], node.output[0]
    grid.check_fits(importer.shape(x))
    if x in importer.constants:
        importer.constants[output] = grid.values(_float32(importer.constants[x], grid.where))
        importer.grids[output] = grid
        return
    if grid.bits > MAX_BITS:
        raise UnsupportedError(
            grid.where,
            f"bits = {grid.bits} is outside 1..{MAX_BITS} (refused by design)",
            "Use 1 to 8 bits",
        )
    importer.expressions[output] = importer.quantized(x, grid, node.name)


def _float32(array: np.ndarray, where: str) -> np.ndarray:
    if array.dtype != np.float32:
        raise UnsupportedError(where, f"its input is {array.dtype}", "Use float32")
    return array


def _bits(importer: Importer, node: NodeProto, index: int) -> int:
    value = importer.parameter(node, index, "bit width")
    if value.size != 1 or not 1 <= value.item() <= _MAX_CONSTANT_BITS or value.item() % 1:
        raise UnsupportedError(
            describe_node(node), f"its bit width is {value.tolist()}", "Use an integer, 1 to 8"
        )
    return int(value.item())


def _attributes(importer: Importer, node: NodeProto, required: tuple[str, ...]) -> dict:
    attributes = importer.attributes(node)
    for name in required:
        if attributes.get(name) not in (0, 1):
            raise UnsupportedError(
                describe_node(node), f"its attribute {name!r} isn't 0 or 1", "Export it again"
            )
    return attributes


def _rounding(attributes: dict, default: str, where: str) -> str:
    name = attributes.get("rounding_mode", default)
    name = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
    if name.upper() not in _ROUNDINGS:
        raise UnsupportedError(
            where, f"its rounding mode is {name!r}", f"Use one of {', '.join(_ROUNDINGS)}"
        )
    return _ROUNDINGS[name.upper()]


def _trunc(importer: Importer, node: NodeProto) -> None:
    """Drop low bits: integers over a power of two, rounded again, as after average pooling.

    The integers come first, on a grid of whole steps, for there the division is exact. A
    quantizer that changes nothing then says that the result lies on a grid, to the layer behind.
    """
    where = describe_node(node)
    if importer.qonnx_opset < 2:
        raise UnsupportedError(
            where, "is of version 1, which has no output scale", "Export it with Brevitas >= 0.12"
        )
    scale, zero_point, _, out_scale = (
        importer.parameter(node, i, what)
        for i, what in enumerate(("scale", "zero point", "bit width", "output scale"), 1)
    )
    bits, attributes = _bits(importer, node, 5), _attributes(importer, node, ("signed", "narrow"))
    if np.any(zero_point) or scale.size != 1 or out_scale.size != 1 or bits > MAX_BITS:
        raise UnsupportedError(
            where, "has a zero point, scales per channel or more than 8 bits", "Truncate without"
        )
    low, high = _range(bits, attributes, where)
    grid = Grid(out_scale.reshape(()), np.float32(0), bits, low, high, where=where)
    step = _power_of_two(scale.reshape(()), grid.scale, where)
    whole = replace(grid, scale=step, rounding=_rounding(attributes, "FLOOR", where))
    emit, x = importer.builder.emit, importer.expression(node.input[0])
    steps = emit(relax.op.round(emit(relax.op.divide(x, literal(scale.reshape(()))))))
    kept = emit(quantize(steps, whole.encoding(0, is_constant=False)[0], layer=node.name))
    real = emit(relax.op.multiply(kept, literal(grid.scale / step)))
    encoding, _ = grid.encoding(0, is_constant=True)
    importer.define(node, quantize(real, encoding, layer=node.name))


def _power_of_two(scale: np.ndarray, out_scale: np.ndarray, where: str) -> np.ndarray:
    """Ratio of two scales, rounded to a power of two as the QONNX executor does."""
    Grid(scale, np.float32(0), 1, 0, 1, where=where)  # Checks it.
    step = np.float32(2) ** np.round(np.log2(out_scale / scale))
    if not 2**-24 <= step <= 2**24:
        raise UnsupportedError(where, f"drops a factor of {step}", "Keep the scales closer")
    return step


CONVERTERS: dict[str, Converter] = {
    "Quant": _quant,
    "IntQuant": _quant,
    "BipolarQuant": _bipolar_quant,
    "Trunc": _trunc,
}
