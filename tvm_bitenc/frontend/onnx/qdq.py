"""QDQ: `QuantizeLinear` and `DequantizeLinear`.

A pair of them is one quantizer. DequantizeLinear of stored integers is a quantized weight, or a
bias where they have 32 bits.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import NodeProto, TensorProto, helper
from tvm import relax

from ...errors import UnsupportedError
from ...op.quantize import quantize
from .codes import Codes, limits
from .constants import literal
from .grid import Grid
from .importer import Converter, Importer
from .model import describe_node

_DTYPES = ("int8", "uint8", "int4", "uint4", "int32")


def _quantize_linear(importer: Importer, node: NodeProto) -> None:
    x, output = node.input[0], node.output[0]
    dtype = _output_dtype(importer, node)
    grid = _grid(importer, node, dtype)
    if dtype == "int32":
        raise UnsupportedError(grid.where, "makes int32", "Quantize to 4 or 8 bits")
    if x in importer.constants:
        values = importer.constants[x].astype(np.float32)  # It may be int32.
        importer.constants[output] = grid.integers(values).astype(_numpy(dtype))
        return
    real = importer.expression(x)
    if str(real.ty.dtype) == "int32":
        real = importer.builder.emit(relax.op.astype(real, "float32"))
    if str(real.ty.dtype) != "float32":
        raise UnsupportedError(grid.where, f"quantizes {real.ty.dtype}", "Use float32")
    importer.codes[output] = Codes(real, grid, dtype, node.name)


def _dequantize_linear(importer: Importer, node: NodeProto) -> None:
    x, output = node.input[0], node.output[0]
    codes, integers = importer.codes.get(x), importer.constants.get(x)
    if codes is not None:
        dtype = codes.dtype
    else:
        dtype = (
            integers.dtype.name if integers is not None else str(importer.expression(x).ty.dtype)
        )
    grid = _grid(importer, node, dtype)
    if integers is not None:
        difference = integers.astype(np.int64) - grid.zero_point.astype(np.int64)
        importer.constants[output] = difference.astype(np.float32) * grid.scale
        is_narrow = grid.bits == 8 and integers.size
        importer.grids[output] = grid.narrowed(integers) if is_narrow else grid
    elif codes is not None and _same(codes.grid, grid):
        importer.expressions[output] = codes.levels(importer.builder)
    else:
        _dequantize(importer, node, grid)


def _dequantize(importer: Importer, node: NodeProto, grid: Grid) -> None:
    """Arithmetic on integers of the graph; a quantizer then says that the result is on a grid."""
    emit, codes = importer.builder.emit, importer.codes.get(node.input[0])
    scale, zero_point = (literal(value) for value in (grid.scale, grid.zero_point))
    if codes is not None and codes.is_per_tensor and codes.grid.zero_point == grid.zero_point:
        grid = replace(grid, bits=codes.grid.bits, low=codes.grid.low, high=codes.grid.high)
        differences = codes.steps(importer.builder)
    else:
        values = emit(relax.op.astype(importer.expression(node.input[0]), "float32"))
        differences = emit(relax.op.subtract(values, zero_point))
    values = emit(relax.op.multiply(differences, scale))
    if grid.bits <= 8:
        encoding, axis = grid.encoding(len(values.ty.shape), is_constant=True)
        values = quantize(values, encoding, axis, node.name)
    importer.define(node, values)


def _output_dtype(importer: Importer, node: NodeProto) -> str:
    stated = importer.attributes(node).get("output_dtype", TensorProto.UNDEFINED)
    if len(node.input) > 2 and node.input[2]:
        return importer.parameter(node, 2, "zero point").dtype.name
    return _numpy_name(stated) if stated else "uint8"


def _grid(importer: Importer, node: NodeProto, dtype: str) -> Grid:
    where = describe_node(node)
    if dtype not in _DTYPES:
        design = " (refused by design)" if "16" in dtype else ""
        raise UnsupportedError(
            where, f"has {dtype} codes{design}", f"Use one of {', '.join(_DTYPES)}"
        )
    attributes = importer.attributes(node)
    axis = attributes.get("axis", 1)
    if attributes.get("block_size", 0):
        raise UnsupportedError(
            where,
            "quantizes in blocks (refused by design)",
            "Quantize per tensor or per channel (block_size=0)",
        )
    scale, shape = importer.parameter(node, 1, "scale"), importer.shape(node.input[0])
    if len(node.input) > 2 and node.input[2]:
        zero_point = importer.parameter(node, 2, "zero point")
        if zero_point.dtype.name != dtype:
            raise UnsupportedError(
                where, f"has {dtype} codes and a zero point of {zero_point.dtype}", "Use one dtype"
            )
    else:
        zero_point = np.zeros(scale.shape)
    if zero_point.size > 1 and zero_point.size != scale.size:
        raise UnsupportedError(where, "has other zero points than scales", "Give one of each")
    scale, zero_point = (_along_axis(p, axis, node, shape) for p in (scale, zero_point))
    zero_point = zero_point.astype(np.float32)
    grid = Grid(scale, zero_point, *limits(dtype), is_zero_point_late=True, where=where)
    grid.check_fits(shape)
    return grid


def _along_axis(parameter: np.ndarray, axis: int, node: NodeProto, shape: list) -> np.ndarray:
    """Spell a parameter per tensor as a scalar, one per channel so that it broadcasts."""
    if parameter.size == 1:
        return parameter.reshape(())
    rank = len(shape)
    axis = 0 if rank == 1 and axis == 1 else axis
    if parameter.ndim != 1 or not -rank <= axis < rank:
        raise UnsupportedError(
            describe_node(node),
            f"its scale {parameter.shape} doesn't match axis {axis} of {tuple(shape)}",
            "Use one scale per tensor or per channel",
        )
    return parameter.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


def _same(a: Grid, b: Grid) -> bool:
    """Whether two nodes quantize and dequantize with the same numbers."""
    return np.array_equal(a.scale, b.scale) and np.array_equal(a.zero_point, b.zero_point)


def _numpy(dtype: str) -> np.dtype:
    return helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(dtype.upper()))


def _numpy_name(element_type: int) -> str:
    return TensorProto.DataType.Name(element_type).lower()


CONVERTERS: dict[str, Converter] = {
    "QuantizeLinear": _quantize_linear,
    "DequantizeLinear": _dequantize_linear,
}
