"""The walk over an ONNX graph: constants are folded, own converters go before TVM's."""

from __future__ import annotations

import numpy as np
import tvm
from onnx import GraphProto, ModelProto, NodeProto, helper
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from ...errors import BitencError, UnsupportedError, first_line
from . import constants, dynamic, finn, integer, layers, moves, qdq, qlinear, qonnx, sizes
from .importer import Converter, Importer
from .model import MICROSOFT, QONNX, STANDARD, describe_node, inputs_of, opset_of

# (domain, op type) -> the function that defines the outputs of such a node.
CONVERTERS: dict[tuple[str, str], Converter] = {
    (domain, op): convert
    for domains, table in (
        (STANDARD, layers.CONVERTERS),
        (STANDARD, dynamic.CONVERTERS),
        (STANDARD, integer.CONVERTERS),
        (STANDARD, qlinear.CONVERTERS),
        ((MICROSOFT,), dynamic.MICROSOFT_CONVERTERS),
        ((MICROSOFT,), qlinear.MICROSOFT_CONVERTERS),
        ((*STANDARD, MICROSOFT), qdq.CONVERTERS),  # ONNX Runtime uses its own for 4 bits.
        (QONNX, qonnx.CONVERTERS),
        (QONNX, finn.CONVERTERS),
    )
    for op, convert in table.items()
    for domain in domains
}


def import_model(model: ModelProto) -> tvm.IRModule:
    """Convert a model that `model.prepared` made ready."""
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
        if (node.domain, node.op_type) not in CONVERTERS
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
    symbols: dict[str, tvm.tirx.Var] = {}
    for value in inputs_of(model):
        tensor = value.type.tensor_type
        shape = [
            dim.dim_value or symbols.setdefault(dim.dim_param or f"{value.name}_batch", None)
            for dim in tensor.shape.dim
        ]
        if shape and shape[0] is None:
            name = tensor.shape.dim[0].dim_param or f"{value.name}_batch"
            symbols[name] = symbols[name] or tvm.tirx.Var(name, "int64")
            shape[0] = symbols[name]
        dtype = str(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        var = relax.Var(value.name, relax.TensorType(shape, dtype))
        importer.expressions[value.name] = var
    return [importer.expressions[value.name] for value in inputs_of(model)]


def _convert(node: NodeProto, importer: Importer) -> None:
    """Define the outputs of one node; every error names it."""
    own = CONVERTERS.get((node.domain, node.op_type))
    try:
        if not _fold(node, importer) and not sizes.track(importer, node):
            convert = sizes.converter(importer, node) or own or Importer.convert
            if not moves.move(importer, node, convert):
                convert(importer, node)
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
    shape = importer.shape(node.input[0])
    bounds = {a.name: a.i for a in node.attribute}
    shape = shape[bounds.get("start", 0) : bounds.get("end", len(shape))]
    if not all(isinstance(size, int) for size in shape):
        return False
    importer.constants[node.output[0]] = np.array(shape, np.int64)
    return True


def _name_of(output: str, graph: GraphProto) -> str:
    """Name of the node that makes an output of the graph: the last layer goes by it in reports."""
    return next((node.name for node in graph.node if output in node.output), output)


def _result(name: str, importer: Importer) -> relax.Expr:
    found = importer.codes.get(name)
    if found is not None and found.dtype not in ("int8", "uint8"):
        raise UnsupportedError(f"output {name!r}", f"is {found.dtype}", "Dequantize it")
    expr = importer.expression(name)
    if isinstance(expr.ty, relax.ShapeType):
        return relax.op.shape_to_tensor(expr)
    return expr
