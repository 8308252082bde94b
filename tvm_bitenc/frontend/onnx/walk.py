"""The walk over an ONNX graph: constants are folded, own converters go before TVM's."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import tvm
from onnx import GraphProto, ModelProto, NodeProto, helper
from tvm import relax

from ...errors import BitencError, UnsupportedError, first_line
from . import (
    constants,
    dynamic,
    elementwise,
    finn,
    functions,
    indexing,
    integer,
    layers,
    moves,
    normalization,
    pooling,
    qdq,
    qlinear,
    qonnx,
    reads,
    reductions,
    regions,
    resize,
    sequences,
    shaping,
    sizes,
    types,
)
from .elementwise import BOOL, NUMBERS, check_dtype
from .importer import Converter, Importer
from .model import MICROSOFT, QONNX, STANDARD, describe_node, inputs_of, opset_of

FLOATS = ("float32",)
ANY = (*NUMBERS, *BOOL)

# (domain, op type) -> the function that defines the outputs of such a node.
CONVERTERS: dict[tuple[str, str], Converter] = {
    (domain, op): convert
    for domains, table in (
        (STANDARD, elementwise.CONVERTERS),
        (STANDARD, indexing.CONVERTERS),
        (STANDARD, layers.CONVERTERS),
        (STANDARD, normalization.CONVERTERS),
        (STANDARD, pooling.CONVERTERS),
        (STANDARD, reductions.CONVERTERS),
        (STANDARD, regions.CONVERTERS),
        (STANDARD, resize.CONVERTERS),
        (STANDARD, sequences.CONVERTERS),
        (STANDARD, shaping.CONVERTERS),
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


# Operators whose converters in TVM are right: each was read, and the suites of tests run it. What a
# converter ignores, or takes for another type than float32, is refused all the same.
TVM = {
    "Cast": ANY,
    "CastLike": ANY,
    "Einsum": FLOATS,
    "Elu": FLOATS,
    "Gelu": FLOATS,
    "GridSample": FLOATS,
    "HardSigmoid": FLOATS,
    "HardSwish": FLOATS,
    "Selu": FLOATS,
    "Softsign": FLOATS,
}


def import_model(model: ModelProto) -> tvm.IRModule:
    """Convert a model that `model.prepared` made ready."""
    graph = model.graph
    builder = relax.BlockBuilder()
    importer = Importer(builder, opset_of(model, STANDARD), opset_of(model, QONNX))
    _check_ops(graph, importer)
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


def _check_ops(graph: GraphProto, importer: Importer) -> None:
    unknown = [node for node in graph.node if not _is_known(node, importer)]
    if unknown:
        others = sorted({f"{node.domain or 'onnx'}.{node.op_type}" for node in unknown})
        raise UnsupportedError(
            describe_node(unknown[0]),
            f"has no converter (ops without one: {', '.join(others)})",
            "Export the model without it; quantized models in QDQ or QONNX format",
        )


def _is_known(node: NodeProto, importer: Importer) -> bool:
    if (node.domain, node.op_type) in CONVERTERS:
        return True
    return node.domain in STANDARD and (
        node.op_type in TVM
        or node.op_type in constants.FOLDABLE
        or node.op_type in ("If", "Shape", "Size")
        or functions.has_body(node, importer)
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
    stated, invalid = types.expected(node, importer)
    try:
        if not _fold(node, importer) and not sizes.track(importer, node):
            _convert_own_way(node, importer)
        types.check(node, importer, stated)
    except BitencError:
        raise
    except Exception as error:  # TVM's converters have no common class of errors.
        raise invalid or UnsupportedError(
            describe_node(node), f"TVM can't import it: {first_line(error)}", "Change that op"
        ) from error
    if invalid:  # Only now: a converter of our own says more clearly what is wrong.
        raise invalid


def _convert_own_way(node: NodeProto, importer: Importer) -> None:
    by_size = sizes.converter(importer, node)
    if by_size is not None:
        return by_size(importer, node)
    own = CONVERTERS.get((node.domain, node.op_type))
    if own is None and node.op_type == "If":
        return _convert_all(_branch(node, importer), importer)
    if own is None and node.op_type not in TVM:
        if node.op_type not in constants.FOLDABLE and functions.has_body(node, importer):
            return _convert_all(functions.body(node, importer), importer)
        raise UnsupportedError(
            describe_node(node), "has inputs that are computed at run time", "Make them constant"
        )
    importer.read_attributes.clear()
    importer.read_inputs.clear()
    if own is not None:
        if not moves.move(importer, node, own):
            own(importer, node)
    else:
        check_dtype(importer, node, TVM[node.op_type])
        importer.convert(node)
    schema = reads.schema_of(node, importer.opset)
    return reads.check(node, schema, importer.read_attributes, importer.read_inputs)


def _convert_all(nodes: list[NodeProto], importer: Importer) -> None:
    _check_ops(helper.make_graph(nodes, "", [], []), importer)
    for node in nodes:
        _convert(node, importer)


def _branch(node: NodeProto, importer: Importer) -> list[NodeProto]:
    """Nodes of the branch that a constant condition takes."""
    taken = importer.parameter(node, 0, "condition")
    attributes = importer.attributes(node)
    name = "then_branch" if taken.reshape(-1)[0] else "else_branch"
    return functions.branch(node, attributes[name])


def _fold(node: NodeProto, importer: Importer) -> bool:
    """Compute a node of constants now, and the grid of quantized weights along with it."""
    if node.domain not in STANDARD:
        return False
    if node.op_type in ("Shape", "Size"):
        return _fold_shape(node, importer)
    arrays = [importer.constants.get(name) for name in node.input]
    if any(name and array is None for name, array in zip(node.input, arrays)):
        return False
    outputs = constants.fold(node, arrays, importer.opset)
    if outputs is None:
        return False
    importer.constants.update(outputs)
    grid = importer.grids.get(node.input[0]) if node.input else None
    if grid is not None and node.op_type in constants.MOVING:
        shape = importer.constants[node.input[0]].shape
        scales, zero_points = (
            constants.computed(node, [np.broadcast_to(p, shape), *arrays[1:]], importer.opset)
            for p in (grid.scale, grid.zero_point)
        )
        for name in outputs:
            importer.grids[name] = replace(grid, scale=scales[name], zero_point=zero_points[name])
    return True


def _fold_shape(node: NodeProto, importer: Importer) -> bool:
    shape = importer.shape(node.input[0])
    bounds = importer.attributes(node)
    shape = shape[bounds.get("start", 0) : bounds.get("end", len(shape))]
    if not all(isinstance(size, int) for size in shape):
        return False
    value = math.prod(shape) if node.op_type == "Size" else shape
    importer.constants[node.output[0]] = np.array(value, np.int64)
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
