"""Arithmetic on a batch whose size is open: ``view(x.size(0), -1)`` as exporters write it.

Tensors of sizes are followed while importing, as integers and expressions of the batch's symbol.
Operators that only move elements are computed by the reference of the onnx package, on numbers that
stand for the elements. What makes a tensor of such sizes gets them as its shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeAlias

import numpy as np
import tvm
from onnx import NodeProto, helper, numpy_helper
from tvm import relax, tirx
from tvm.sym import Analyzer

from ...errors import UnsupportedError
from . import constants
from .importer import Converter, Importer
from .model import STANDARD, describe_node

Size: TypeAlias = "int | tvm.ir.Expr"
MAX_SIZES = 4096  # Elements of a tensor of sizes that is followed.
MOVING = constants.MOVING | {"Concat", "Expand", "Tile"}


def track(importer: Importer, node: NodeProto) -> bool:
    """Compute a node on sizes, if it is one: True if its outputs are known now."""
    if node.domain not in STANDARD:
        return False
    if node.op_type in ("Shape", "Size"):
        return _shape(importer, node)
    if not any(name in importer.sizes for name in node.input):
        return False
    values = []
    for name in node.input:
        value = _value(importer, name)
        if value is None:
            return False
        values.append(value)
    if node.op_type in MOVING:
        for name, output in _moved(importer, node, values).items():
            _define(importer, name, output)
        return True
    if node.op_type in _ARITHMETIC:
        output = _elementwise(node, _ARITHMETIC[node.op_type], values)
    elif node.op_type == "ReduceProd" and len(values) == 1:
        product = _simple(math.prod(values[0].reshape(-1).tolist()))
        keeps = next((a.i for a in node.attribute if a.name == "keepdims"), 1)
        output = _array([product]) if keeps else _array([product]).reshape(())
    elif node.op_type == "Cast" and _to(node) in ("int32", "int64"):
        output = values[0]
    else:
        return False
    _define(importer, node.output[0], output)
    return True


def converter(importer: Importer, node: NodeProto) -> Converter | None:
    """Return what converts a node whose shape is computed from the batch; None for other nodes."""
    has_sizes = [name for name in node.input if name in importer.sizes]
    if not has_sizes or node.domain not in STANDARD:
        return None
    if node.op_type in _CONSUMERS:
        return _CONSUMERS[node.op_type]
    return _refuse


def _refuse(_importer: Importer, node: NodeProto) -> NoReturn:
    raise UnsupportedError(
        describe_node(node),
        "computes with the size of a dynamic batch",
        "Import with fixed shapes: from_onnx(..., shapes={...})",
    )


def _shape(importer: Importer, node: NodeProto) -> bool:
    sizes = importer.shape(node.input[0])
    if all(isinstance(size, int) for size in sizes):
        return False
    if node.op_type == "Size":
        _define(importer, node.output[0], _array([_simple(math.prod(sizes))]).reshape(()))
        return True
    bounds = {a.name: a.i for a in node.attribute}
    cut = sizes[bounds.get("start", 0) : bounds.get("end", len(sizes))]
    _define(importer, node.output[0], _array(cut))
    return True


def _define(importer: Importer, name: str, values: np.ndarray) -> None:
    """Let a tensor be sizes, or a constant if none depends on the batch."""
    flat = values.reshape(-1).tolist()
    if all(isinstance(value, bool) for value in flat):
        importer.constants[name] = values.astype(bool)
    elif all(isinstance(value, int) for value in flat):
        importer.constants[name] = values.astype(np.int64)
    else:
        importer.sizes[name] = values


def _value(importer: Importer, name: str) -> np.ndarray | None:
    """Elements of a tensor of sizes or of a small constant one, Python integers among them."""
    if name in importer.sizes:
        return importer.sizes[name]
    value = importer.constants.get(name)
    if value is None or value.size > MAX_SIZES or value.dtype.kind not in "iub":
        return None
    return _array(value.reshape(-1).tolist()).reshape(value.shape)


def _array(values: Sequence) -> np.ndarray:
    """An array of objects of one axis; numpy mustn't look into expressions."""
    array = np.empty(len(values), object)
    for i, value in enumerate(values):
        array[i] = int(value) if isinstance(value, tirx.IntImm) else value
    return array


def _moved(importer: Importer, node: NodeProto, values: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs of an op that moves elements, found by where it takes numbers for them."""
    data = len(values) if node.op_type == "Concat" else 1
    if any(name in importer.sizes for name in node.input[data:]):
        _refuse(importer, node)
    table: list = []
    arrays: list[np.ndarray | None] = []
    for value in values[:data]:
        arrays.append(np.arange(len(table), len(table) + value.size).reshape(value.shape))
        table += value.reshape(-1).tolist()
    arrays += [importer.constants[name] if name else None for name in node.input[data:]]
    outputs = constants.computed(node, arrays, importer.opset)
    return {
        name: _array([table[i] for i in output.reshape(-1)]).reshape(output.shape)
        for name, output in outputs.items()
    }


def _elementwise(node: NodeProto, function: Callable, values: list[np.ndarray]) -> np.ndarray:
    shape = np.broadcast_shapes(*(value.shape for value in values))
    columns = [np.broadcast_to(value, shape).reshape(-1).tolist() for value in values]
    results = [function(node, *row) for row in zip(*columns)]
    return _array(results).reshape(shape)


def _simple(value: Size) -> Size:
    """Simplify an expression; integers stay Python's."""
    if isinstance(value, (bool, int)):
        return value
    value = _analyzer(value).simplify(value)
    return int(value) if isinstance(value, tirx.IntImm) else value


def _analyzer(*values: Size) -> Analyzer:
    """Return an analyzer that knows that a batch has samples."""
    analyzer = Analyzer()
    for value in values:
        if isinstance(value, tvm.ir.Expr):
            for symbol in tirx.analysis.undefined_vars(value):
                one, most = tirx.const(1, "int64"), tirx.const(2**31, "int64")
                analyzer.bind(symbol, tvm.ir.Range.from_min_extent(one, most), True)
    return analyzer


def equals(a: Size, b: Size) -> bool | None:
    """Whether two sizes are equal for every batch: True, False, or None where it depends."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    analyzer = _analyzer(a, b)
    a, b = (tirx.const(v, "int64") if isinstance(v, int) else v for v in (a, b))
    if analyzer.can_prove_equal(a, b):
        return True
    return False if analyzer.can_prove(tirx.NE(a, b)) else None


def _decided(node: NodeProto, a: Size, b: Size) -> bool:
    found = equals(a, b)
    if found is None:
        raise UnsupportedError(
            describe_node(node), f"asks whether {a} is {b}", "Import with fixed shapes"
        )
    return found


def _quotient(node: NodeProto, a: Size, b: Size) -> Size:
    """Quotient of whole numbers, where it leaves no rest."""
    if isinstance(b, int) and b == 0:
        raise UnsupportedError(describe_node(node), "divides by 0", "Export the model again")
    if isinstance(a, int) and isinstance(b, int):
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    quotient = _simple(tirx.floordiv(*(tirx.const(v, "int64") if isinstance(v, int) else v
                                       for v in (a, b))))  # fmt: skip
    if equals(quotient * b, a) is not True:
        raise UnsupportedError(
            describe_node(node), f"divides {a} by {b}", "Import with fixed shapes"
        )
    return quotient


_ARITHMETIC: dict[str, Callable] = {
    "Add": lambda _, a, b: _simple(a + b),
    "Sub": lambda _, a, b: _simple(a - b),
    "Mul": lambda _, a, b: _simple(a * b),
    "Div": _quotient,
    "Equal": _decided,
    "Where": lambda _, condition, a, b: a if condition else b,
}


def _reshape(importer: Importer, node: NodeProto) -> None:
    sizes, stated = importer.shape(node.input[0]), _value(importer, node.input[1])
    if stated is None or node.input[0] in importer.sizes or stated.ndim != 1:
        _refuse(importer, node)
    keeps_zero = any(a.name == "allowzero" and a.i for a in node.attribute)
    wanted = [
        sizes[i]
        if isinstance(size, int) and size == 0 and not keeps_zero and i < len(sizes)
        else size
        for i, size in enumerate(stated)
    ]
    unknown = [i for i, size in enumerate(wanted) if isinstance(size, int) and size == -1]
    if len(unknown) == 1:
        known = math.prod(size for i, size in enumerate(wanted) if i != unknown[0])
        wanted[unknown[0]] = _quotient(node, math.prod(sizes), known)
    if equals(math.prod(sizes), math.prod(wanted)) is not True:
        raise UnsupportedError(
            describe_node(node), f"makes {wanted} of {sizes}", "Import with fixed shapes"
        )
    return importer.define(node, relax.op.reshape(importer.expression(node.input[0]), wanted))


def _expand(importer: Importer, node: NodeProto) -> None:
    wanted = _value(importer, node.input[1])
    if wanted is None or node.input[0] in importer.sizes:
        _refuse(importer, node)
    return _broadcast(importer, node, wanted.tolist())


def _tile(importer: Importer, node: NodeProto) -> None:
    """Repeat along axes of size 1, as class tokens are."""
    repeats, sizes = _value(importer, node.input[1]), importer.shape(node.input[0])
    if repeats is None or node.input[0] in importer.sizes:
        _refuse(importer, node)
    fixed = [count if isinstance(count, int) else 1 for count in repeats]
    x = importer.expression(node.input[0])
    if any(count != 1 for count in fixed):
        x = importer.builder.emit(relax.op.tile(x, fixed))
    wanted = [size * count for size, count in zip(sizes, repeats)]
    if any(size != 1 for size, count in zip(sizes, repeats) if not isinstance(count, int)):
        _refuse(importer, node)
    return importer.define(node, relax.op.broadcast_to(x, wanted))


def _broadcast(importer: Importer, node: NodeProto, wanted: list) -> None:
    """ONNX's Expand: an axis of size 1 on either side takes the size of the other one."""
    sizes = importer.shape(node.input[0])
    rank = max(len(sizes), len(wanted))
    sides = [[1] * (rank - len(side)) + list(side) for side in (sizes, wanted)]
    shape = []
    for size, other in zip(*sides):
        if isinstance(other, int) and other == 1:
            shape.append(size)
        elif isinstance(size, int) and size == 1:
            shape.append(other)
        elif _decided(node, size, other):
            shape.append(size)
        else:
            raise UnsupportedError(
                describe_node(node), f"makes {wanted} of {sizes}", "Export the model again"
            )
    importer.define(node, relax.op.broadcast_to(importer.expression(node.input[0]), shape))


def _constant_of_shape(importer: Importer, node: NodeProto) -> None:
    value = next((a.t for a in node.attribute if a.name == "value"), None)
    number = np.zeros(1, np.float32) if value is None else numpy_helper.to_array(value)
    shape = importer.sizes[node.input[0]].reshape(-1).tolist()
    importer.define(node, relax.op.full(shape, relax.const(number.reshape(())), number.dtype.name))


def _to(node: NodeProto) -> str:
    to = next(a.i for a in node.attribute if a.name == "to")
    return helper.tensor_dtype_to_np_dtype(to).name


_CONSUMERS: dict[str, Converter] = {
    "Reshape": _reshape,
    "Expand": _expand,
    "Tile": _tile,
    "ConstantOfShape": _constant_of_shape,
}
