"""`Importer`: what is known of each tensor while the nodes of an ONNX graph are converted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import tvm
from onnx import NodeProto, TensorProto, helper
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from ...errors import UnsupportedError
from ...op.quantize import quantize
from .codes import Codes
from .grid import MAX_BITS, Grid
from .model import describe_node

Converter = Callable[["Importer", NodeProto], None]


@dataclass
class Importer:
    """What is known of each tensor of the graph, by its name.

    Parameters
    ----------
    builder : relax.BlockBuilder
    opset : int
        Of the standard operators.
    qonnx_opset : int
    expressions : dict of str to relax.Expr
        Tensors computed at run time.
    constants : dict of str to ndarray
        Tensors known now.
    grids : dict of str to Grid
        Constants that a quantizer made.
    codes : dict of str to Codes
        Integer tensors of which the real numbers behind are known.
    sizes : dict of str to ndarray of object
        Tensors that depend on the batch's size alone: integers and expressions of its symbol.
    """

    builder: relax.BlockBuilder
    opset: int
    qonnx_opset: int
    expressions: dict[str, relax.Expr] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    grids: dict[str, Grid] = field(default_factory=dict)
    codes: dict[str, Codes] = field(default_factory=dict)
    sizes: dict[str, np.ndarray] = field(default_factory=dict)

    def expression(self, name: str) -> relax.Expr:
        """Return a tensor as Relax has it."""
        if name in self.constants:
            return relax.const(_storable(self.constants[name]))
        if name in self.sizes and self.sizes[name].ndim == 1:
            return relax.ShapeExpr(self.sizes[name].tolist())
        if name in self.sizes:
            raise UnsupportedError(
                f"tensor {name!r}", "is the size of a dynamic batch", "Import with fixed shapes"
            )
        if name not in self.expressions:
            self.expressions[name] = self.codes[name].integers(self.builder)
        return self.expressions[name]

    def operand(self, name: str, node: NodeProto) -> relax.Expr:
        """Return an operand of a layer: quantized weights say so, under the layer's name."""
        grid = self.grids.get(name)
        if grid is None or grid.bits > MAX_BITS:
            return self.expression(name)
        value = self.constants[name]
        encoding, axis = grid.encoding(value.ndim, is_constant=True)
        call = quantize(relax.const(value), encoding, axis, node.name)
        return self.builder.emit(call, f"{node.name}_weight")

    def quantized(self, name: str, grid: Grid, layer: str) -> relax.Expr:
        """Return a tensor rounded to a grid at run time."""
        x = self.expression(name)
        encoding, axis = grid.encoding(len(x.ty.shape), is_constant=False)
        return self.builder.emit(quantize(x, encoding, axis, layer), layer)

    def shape(self, name: str) -> list:
        """Sizes of a tensor, integers where they are fixed."""
        if name in self.constants:
            return list(self.constants[name].shape)
        if name in self.sizes:
            return list(self.sizes[name].shape)
        tensor = self.codes[name].source if name in self.codes else self.expression(name)
        sizes = tensor.ty.shape
        return [int(n) if isinstance(n, tvm.tirx.IntImm) else n for n in sizes]

    def parameter(self, node: NodeProto, index: int, what: str) -> np.ndarray:
        """Return an input that must be constant."""
        name = node.input[index] if index < len(node.input) else ""
        if name not in self.constants:
            raise UnsupportedError(
                describe_node(node),
                f"its {what} {'is missing' if not name else 'is computed at run time'}",
                f"Export the model with a constant {what}",
            )
        return self.constants[name]

    def define(self, node: NodeProto, expr: relax.Expr, index: int = 0) -> None:
        """Set an output of a node to an expression."""
        expr = self.builder.normalize(expr)
        if isinstance(expr, relax.Call):
            expr = self.builder.emit(expr, node.name)
        if not isinstance(expr.ty, (relax.TensorType, relax.ShapeType)):
            raise UnsupportedError(
                describe_node(node), f"gives {expr.ty}, not a tensor", "Use ops on tensors"
            )
        self.expressions[node.output[index]] = expr

    def convert(self, node: NodeProto, **changed) -> None:
        """Convert a node as TVM's importer does, with some attributes changed."""
        inputs = onnx_frontend.onnx_input(
            self.expression(name) if name else None for name in node.input
        )
        attributes = {a.name: _attribute(a) for a in node.attribute} | changed
        attributes["tvm_custom"] = {"name": node.name, "num_outputs": len(node.output)}
        kind = onnx_frontend._get_convert_map()[node.op_type]  # TVM has no public way to it.
        result = kind.get_converter(self.opset)(
            self.builder, inputs, attributes, [self.expressions, {}]
        )
        self._define_all(node, self.builder.normalize(result))

    def _define_all(self, node: NodeProto, result: relax.Expr) -> None:
        if isinstance(result, relax.Call) and isinstance(result.ty, relax.TupleType):
            var = self.builder.emit(result, node.name)
            result = [relax.TupleGetItem(var, i) for i in range(len(var.ty.fields))]
        for i, output in enumerate(node.output):
            if output:
                self.define(node, result if isinstance(result, relax.Expr) and
                            not isinstance(result, relax.Tuple) else result[i], i)  # fmt: skip


def _storable(array: np.ndarray) -> np.ndarray:
    """4-bit integers as int8 or uint8, for Relax constants have none."""
    name = array.dtype.name
    return array.astype(name.replace("4", "8")) if name in ("int4", "uint4") else array


def _attribute(attribute):
    value = helper.get_attribute_value(attribute)
    is_list = isinstance(value, (bytes, int, float, TensorProto)) is False
    return tuple(value) if is_list and hasattr(value, "__iter__") else value
