"""The walk over an ONNX graph: own converters first, then constants, then TVM's converters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import tvm
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from ...errors import BitencError, UnsupportedError, first_line
from ...op.quantize import quantize
from . import constants
from .grid import MAX_BITS, Grid
from .model import QONNX, STANDARD, describe_node, inputs_of, opset_of

Converter = Callable[["Importer", NodeProto], None]
_converters: dict[tuple[str, str], Converter] = {}


def converter(*op_types: str, domains: tuple[str, ...] = STANDARD):
    """Register a function that converts nodes of some op types: it defines their outputs."""

    def register(function: Converter) -> Converter:
        _converters.update({(domain, op): function for domain in domains for op in op_types})
        return function

    return register


@dataclass(frozen=True)
class Codes:
    """What QuantizeLinear makes of the tensor `source`."""

    source: str
    grid: Grid
    dtype: str
    layer: str


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
        Integer tensors whose float source is known.
    """

    builder: relax.BlockBuilder
    opset: int
    qonnx_opset: int
    expressions: dict[str, relax.Expr] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    grids: dict[str, Grid] = field(default_factory=dict)
    codes: dict[str, Codes] = field(default_factory=dict)

    def expression(self, name: str) -> relax.Expr:
        """Return a tensor as Relax has it."""
        if name in self.constants:
            return relax.const(_storable(self.constants[name]))
        if name not in self.expressions:
            self.expressions[name] = self._integers(self.codes[name])
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
        name = self.codes[name].source if name in self.codes else name
        sizes = self.expression(name).ty.shape
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

    def _integers(self, codes: Codes) -> relax.Expr:
        """Integers of QuantizeLinear that something else than DequantizeLinear reads."""
        emit, grid = self.builder.emit, codes.grid
        levels = self.quantized(codes.source, grid, codes.layer)
        scale, zero_point = (relax.const(v) for v in (grid.scale, grid.zero_point))
        position = emit(relax.op.round(emit(relax.op.divide(levels, scale))))
        return emit(relax.op.astype(emit(relax.op.add(position, zero_point)), codes.dtype))


def import_model(model: ModelProto) -> tvm.IRModule:
    """Convert a model that `model.prepared` made ready."""
    from . import layers, qdq, qonnx  # noqa: F401  They register converters.

    graph = model.graph
    _check_ops(graph)
    builder = relax.BlockBuilder()
    importer = Importer(builder, opset_of(model, STANDARD), opset_of(model, QONNX))
    for tensor in graph.initializer:
        importer.constants[tensor.name] = constants.array_of(tensor, f"weight {tensor.name!r}")
    inputs = _inputs(model, importer)
    with builder.function("main", inputs):
        with builder.dataflow():
            for node in graph.node:
                _convert(node, importer)
            results = [_result(value.name, importer) for value in graph.output]
            result = results[0] if len(results) == 1 else relax.Tuple(results)
            result = builder.emit_output(result, _name_of(graph.output[0].name, graph))
        builder.emit_func_output(result)
    return relax.transform.DeadCodeElimination()(builder.get())


def _check_ops(graph: GraphProto) -> None:
    known = onnx_frontend._get_convert_map()
    unknown = [
        node
        for node in graph.node
        if (node.domain, node.op_type) not in _converters
        and not (node.domain in STANDARD and node.op_type in known)
        and not (node.domain in STANDARD and node.op_type in constants.FOLDABLE)
    ]
    if unknown:
        others = sorted({f"{node.domain or 'onnx'}.{node.op_type}" for node in unknown})
        raise UnsupportedError(
            describe_node(unknown[0]),
            f"has no converter (ops without one: {', '.join(others)})",
            "Export the model without it; quantized models in QDQ or QONNX format",
        )


def _inputs(model: ModelProto, importer: Importer) -> list[relax.Var]:
    sizes: dict[str, tvm.tirx.Var] = {}
    for value in inputs_of(model):
        tensor = value.type.tensor_type
        shape = [
            dim.dim_value or sizes.setdefault(dim.dim_param or f"{value.name}_batch", None)
            for dim in tensor.shape.dim
        ]
        if shape and shape[0] is None:
            name = tensor.shape.dim[0].dim_param or f"{value.name}_batch"
            sizes[name] = sizes[name] or tvm.tirx.Var(name, "int64")
            shape[0] = sizes[name]
        dtype = str(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        var = relax.Var(value.name, relax.TensorType(shape, dtype))
        importer.expressions[value.name] = var
    return [importer.expressions[value.name] for value in inputs_of(model)]


def _convert(node: NodeProto, importer: Importer) -> None:
    """Define the outputs of one node; every error names it."""
    own = _converters.get((node.domain, node.op_type))
    try:
        if not _fold(node, importer):
            (own or Importer.convert)(importer, node)
    except BitencError:
        raise
    except Exception as error:  # TVM's converters have no common class of errors.
        raise UnsupportedError(
            describe_node(node), f"TVM can't import it: {first_line(error)}", "Change that op"
        ) from error


def _fold(node: NodeProto, importer: Importer) -> bool:
    """Compute a node of constants now, and the grid of quantized weights along with it."""
    if node.domain not in STANDARD:
        return False
    if node.op_type == "Shape":
        return _fold_shape(node, importer)
    arrays = [importer.constants.get(name) for name in node.input]
    if any(name and array is None for name, array in zip(node.input, arrays)):
        return False
    outputs = constants.fold(node, arrays, importer.opset)
    if outputs is None:
        return False
    importer.constants.update(zip(node.output, outputs))
    grid = importer.grids.get(node.input[0]) if node.input else None
    if grid is not None and node.op_type in constants.MOVING:
        for i, output in enumerate(node.output):
            importer.grids[output] = grid.moved(
                arrays[0].shape,
                lambda p, i=i: constants.fold(node, [p, *arrays[1:]], importer.opset)[i],
            )
    return True


def _fold_shape(node: NodeProto, importer: Importer) -> bool:
    sizes = importer.shape(node.input[0])
    bounds = {a.name: a.i for a in node.attribute}
    sizes = sizes[bounds.get("start", 0) : bounds.get("end", len(sizes))]
    if not all(isinstance(size, int) for size in sizes):
        return False
    importer.constants[node.output[0]] = np.array(sizes, np.int64)
    return True


def _name_of(output: str, graph: GraphProto) -> str:
    """Name of the node that makes an output of the graph: the last layer goes by it in reports."""
    return next((node.name for node in graph.node if output in node.output), output)


def _result(name: str, importer: Importer) -> relax.Expr:
    codes = importer.codes.get(name)
    if codes is not None and codes.dtype not in ("int8", "uint8"):
        raise UnsupportedError(f"output {name!r}", f"is {codes.dtype}", "Dequantize it")
    expr = importer.expression(name)
    if isinstance(expr.ty, relax.ShapeType):
        return relax.op.shape_to_tensor(expr)
    return expr


def _storable(array: np.ndarray) -> np.ndarray:
    """4-bit integers as int8 or uint8, for Relax constants have none."""
    name = array.dtype.name
    return array.astype(name.replace("4", "8")) if name in ("int4", "uint4") else array


def _attribute(attribute):
    value = helper.get_attribute_value(attribute)
    is_list = isinstance(value, (bytes, int, float, TensorProto)) is False
    return tuple(value) if is_list and hasattr(value, "__iter__") else value
