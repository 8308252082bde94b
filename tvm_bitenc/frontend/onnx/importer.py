"""`Importer`: what is known of each tensor while the nodes of an ONNX graph are converted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm
from onnx import NodeProto
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from ...errors import UnsupportedError
from ...op.quantize import quantize
from . import reads
from .codes import Codes
from .constants import literal
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
    sequences : dict of str to list of str
        Names of the tensors in each sequence.
    read_attributes, read_inputs : set of str
        What was looked up since they were last cleared.
    """

    builder: relax.BlockBuilder
    opset: int
    qonnx_opset: int
    expressions: dict[str, relax.Expr] = field(init=False)
    constants: dict[str, np.ndarray] = field(init=False)
    grids: dict[str, Grid] = field(default_factory=dict)
    codes: dict[str, Codes] = field(init=False)
    sizes: dict[str, np.ndarray] = field(init=False)
    sequences: dict[str, list[str]] = field(init=False)
    read_attributes: set[str] = field(default_factory=set)
    read_inputs: set[str] = field(default_factory=set)

    def __post_init__(self):
        """Let the look-up of a tensor count as reading it."""
        self.expressions = reads.Noting(seen=self.read_inputs)
        self.constants = reads.Noting(seen=self.read_inputs)
        self.codes = reads.Noting(seen=self.read_inputs)
        self.sizes = reads.Noting(seen=self.read_inputs)
        self.sequences = reads.Noting(seen=self.read_inputs)

    def attributes(self, node: NodeProto) -> reads.Attributes:
        """Attributes of a node; what is looked up counts as read."""
        return reads.Attributes(node, reads.schema_of(node, self.opset), self.read_attributes)

    @property
    def _tables(self) -> tuple[dict[str, Any], ...]:
        return self.expressions, self.constants, self.codes, self.sizes, self.sequences

    def knows(self, name: str) -> bool:
        """Whether a tensor or a sequence has been defined."""
        return any(name in table for table in self._tables)

    def alias(self, name: str, other: str) -> None:
        """Let a name stand for a tensor or a sequence that has another one."""
        for table in (*self._tables, self.grids):
            if name in table:
                table[other] = table[name]

    def expression(self, name: str) -> relax.Expr:
        """Return a tensor as Relax has it."""
        if name in self.constants:
            return literal(self.constants[name])
        if name in self.sizes and self.sizes[name].ndim == 1:
            return relax.ShapeExpr(self.sizes[name].tolist())
        if name in self.sizes:
            raise UnsupportedError(
                f"tensor {name!r}", "is the size of a dynamic batch", "Import with fixed shapes"
            )
        if name in self.sequences:
            raise UnsupportedError(f"tensor {name!r}", "is a sequence", "Use ops on tensors")
        if name not in self.expressions:
            self.expressions[name] = self.codes[name].integers(self.builder)
        return self.expressions[name]

    def optional(self, node: NodeProto, index: int) -> relax.Expr | None:
        """Return an input as Relax has it, None where it is left out."""
        name = node.input[index] if index < len(node.input) else ""
        return self.expression(name) if name else None

    def operand(self, name: str, node: NodeProto) -> relax.Expr:
        """Return an operand of a layer: quantized weights say so, under the layer's name."""
        grid = self.grids.get(name)
        if grid is None or grid.bits > MAX_BITS:
            return self.expression(name)
        value = self.constants[name]
        encoding, axis = grid.encoding(value.ndim, is_constant=True)
        call = quantize(literal(value), encoding, axis, node.name)
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
        if not isinstance(sizes, relax.ShapeExpr):
            raise UnsupportedError(
                f"tensor {name!r}",
                "has a shape that only its values tell",
                "Export the model with fixed shapes",
            )
        return [int(n) if isinstance(n, tvm.tirx.IntImm) else n for n in sizes]

    def dtype(self, name: str) -> str:
        """Name of the type of the elements of a tensor."""
        if name in self.constants:
            return self.constants[name].dtype.name
        if name in self.codes:
            return self.codes[name].dtype
        return "int64" if name in self.sizes else str(self.expression(name).ty.dtype)

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
        if isinstance(expr, (relax.Call, relax.TupleGetItem)):
            expr = self.builder.emit(expr, node.name)
        if not isinstance(expr.ty, (relax.TensorType, relax.ShapeType)):
            raise UnsupportedError(
                describe_node(node), f"gives {expr.ty}, not a tensor", "Use ops on tensors"
            )
        self.expressions[node.output[index]] = expr

    def convert(self, node: NodeProto, **changed) -> None:
        """Convert a node as TVM's importer does, with some attributes changed."""
        inputs = reads.Inputs(self.expression(name) if name else None for name in node.input)
        self.read_inputs.clear()  # They count as read once the converter looks at them.
        self.read_attributes.update(changed)
        attributes = reads.Noting(reads.given(node) | changed, self.read_attributes)
        attributes["tvm_custom"] = {"name": node.name, "num_outputs": len(node.output)}
        kind = onnx_frontend._get_convert_map()[node.op_type]  # TVM has no public way to it.
        result = kind.get_converter(self.opset)(
            self.builder, inputs, attributes, [self.expressions, {}]
        )
        self.read_inputs.update(node.input[i] for i in inputs.seen if i < len(node.input))
        self._define_all(node, self.builder.normalize(result))

    def _define_all(self, node: NodeProto, result: relax.Expr) -> None:
        if isinstance(result, relax.Call) and isinstance(result.ty, relax.TupleType):
            result = self.builder.emit(result, node.name)
        if isinstance(result.ty, relax.TupleType):
            count = len(result.ty.fields)
            results = [relax.TupleGetItem(result, i) for i in range(count)]
            results = result.fields if isinstance(result, relax.Tuple) else results
        else:
            results = [result]
        for i, output in enumerate(node.output[: len(results)]):
            if output:
                self.define(node, results[i], i)
