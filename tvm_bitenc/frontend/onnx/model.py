"""An ONNX model as the importer wants it: valid, flat, of fixed shapes, every node named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import onnx
import onnx.inliner
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from ...errors import BitencError, UnsupportedError, first_line
from . import bounds

OPSETS = range(7, 22)
STANDARD = ("", "ai.onnx")
MICROSOFT = "com.microsoft"
QONNX = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
INPUT_TYPES = (
    TensorProto.FLOAT,
    TensorProto.BOOL,
    TensorProto.INT8,
    TensorProto.UINT8,
    TensorProto.INT32,
    TensorProto.INT64,
)
MAX_ELEMENTS = 2**31 - 1  # Of one tensor: kernels index with int32.


def load(path_or_model_proto: str | Path | ModelProto) -> ModelProto:
    """Read and check a model; a proto is copied, for `prepared` changes it."""
    if isinstance(path_or_model_proto, ModelProto):
        model, where = ModelProto(), "from_onnx"
        model.CopyFrom(path_or_model_proto)
    elif isinstance(path_or_model_proto, (str, Path)):
        where = f"file {str(path_or_model_proto)!r}"
        model = _read(Path(path_or_model_proto), where)
    else:
        kind = type(path_or_model_proto).__name__
        raise BitencError("from_onnx", f"{kind} is no model", "Give a path or an onnx.ModelProto")
    bounds.check(model, where)
    _import_domains(model)
    try:
        _check(model)
        if not model.functions:
            return model
        return onnx.inliner.inline_local_functions(model)
    except BitencError:
        raise
    except Exception as error:  # The checker, the inliner and protobuf have no common class.
        raise BitencError(
            where, f"isn't a valid ONNX model: {first_line(error)}", "Export it again"
        ) from error


def _import_domains(model: ModelProto) -> None:
    """Import domains that files use without saying so: published QONNX files do."""
    imported = {opset.domain for opset in model.opset_import}
    used = {node.domain for node in model.graph.node} & {*QONNX, MICROSOFT}
    model.opset_import.extend(onnx.helper.make_opsetid(domain, 1) for domain in used - imported)


def _check(model: ModelProto) -> None:
    """Run onnx's checker, which wants a shape of each output where other readers don't."""
    unknown = [v for v in model.graph.output if v.type.WhichOneof("value") == "tensor_type"]
    unknown = [v for v in unknown if not v.type.tensor_type.HasField("shape")]
    for value in unknown:
        value.type.tensor_type.shape.SetInParent()
    onnx.checker.check_model(model)
    for value in unknown:
        value.type.tensor_type.ClearField("shape")


def _read(path: Path, where: str) -> ModelProto:
    if not path.is_file():
        raise BitencError(where, "doesn't exist", "Give the path of an .onnx file")
    try:
        return bounds.read(path, where)
    except BitencError:
        raise
    except Exception as error:  # Protobuf has several errors, and external data its own.
        raise BitencError(where, f"can't be read: {first_line(error)}", "Export it again") from None


def prepared(model: ModelProto, shapes: Mapping[str, Sequence[int]]) -> ModelProto:
    """Fix input shapes and name nodes; refuse what no converter could take.

    Parameters
    ----------
    model : onnx.ModelProto
        Is changed.
    shapes : mapping of str to sequence of int

    Raises
    ------
    UnsupportedError
    """
    opset = opset_of(model, STANDARD)
    if opset not in OPSETS:
        raise UnsupportedError(
            "from_onnx",
            f"the model is of operator set {opset}",
            f"Convert it to one of {OPSETS.start} to {OPSETS.stop - 1} with onnx.version_converter",
        )
    if model.graph.sparse_initializer:
        raise UnsupportedError("from_onnx", "it has sparse weights", "Store them as dense tensors")
    _name_nodes(model.graph.node)
    for node in model.graph.node:
        _check_node(node)
    _fix_shapes(inputs_of(model), shapes)
    return model


def opset_of(model: ModelProto, domains: Sequence[str]) -> int:
    """Version of the first of some domains that the model imports, 1 if none."""
    return next((o.version for o in model.opset_import if o.domain in domains), 1)


def inputs_of(model: ModelProto) -> list[ValueInfoProto]:
    """Inputs that are fed: weights are listed among the inputs as well."""
    weights = {weight.name for weight in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def describe_node(node: NodeProto) -> str:
    """Name a node as messages do."""
    return f"{node.op_type} node {node.name!r}"


def _name_nodes(nodes: Iterable[NodeProto]) -> None:
    """Name nodes without a name, or with that of another one, after their first output."""
    taken = {"main"}  # That is the function's own name.
    for node in nodes:
        if not node.name or node.name in taken:
            node.name = next((output for output in node.output if output), node.op_type)
        if node.name == "main":
            node.name = f"main_{node.op_type}"
        taken.add(node.name)


def _check_node(node: NodeProto) -> None:
    graphs = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
    if node.op_type != "If" and any(attribute.type in graphs for attribute in node.attribute):
        raise UnsupportedError(
            describe_node(node), "has a graph inside", "Export the model without control flow"
        )
    if any(attribute.ref_attr_name for attribute in node.attribute):
        raise UnsupportedError(
            describe_node(node), "refers to an attribute of a function", "Inline the functions"
        )


def _fix_shapes(inputs: list[ValueInfoProto], shapes: Mapping[str, Sequence[int]]) -> None:
    names = [value.name for value in inputs]
    for name in shapes:
        if name not in names:
            raise BitencError(
                f"shapes of {name!r}", "names no input", f"The inputs are {', '.join(names)}"
            )
    for value in inputs:
        _check_type(value)
        if value.name in shapes:
            _fix_shape(value, shapes[value.name])
        _check_shape(value)


def _check_type(value: ValueInfoProto) -> None:
    if value.type.WhichOneof("value") != "tensor_type":
        raise UnsupportedError(f"input {value.name!r}", "is no tensor", "Use tensors only")
    if value.type.tensor_type.elem_type not in INPUT_TYPES:
        kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        raise UnsupportedError(
            f"input {value.name!r}", f"is {kind}", "Export the model with float32 inputs"
        )


def _fix_shape(value: ValueInfoProto, shape: Sequence[int]) -> None:
    tensor = value.type.tensor_type
    known = [dim.dim_value for dim in tensor.shape.dim] if tensor.HasField("shape") else None
    fits = known is None or (
        len(known) == len(shape) and all(k < 1 or k == size for k, size in zip(known, shape))
    )
    if not fits or any(int(size) != size or size < 1 for size in shape):
        raise BitencError(
            f"shapes of {value.name!r}",
            f"{tuple(shape)} doesn't fit the model's {_shape_text(value)}",
            "Give one positive size per axis, and leave fixed ones as they are",
        )
    del tensor.shape.dim[:]
    for size in shape:
        tensor.shape.dim.add().dim_value = int(size)


def _check_shape(value: ValueInfoProto) -> None:
    tensor = value.type.tensor_type
    for dim in tensor.shape.dim:
        if dim.dim_value < 0:  # Some exporters write -1 for a dynamic size.
            dim.Clear()
    sizes = [dim.dim_value for dim in tensor.shape.dim]
    if not tensor.HasField("shape") or any(size < 1 for size in sizes[1:]):
        raise UnsupportedError(
            f"input {value.name!r}",
            f"has the dynamic shape {_shape_text(value)}",
            f"Fix it: from_onnx(..., shapes={{{value.name!r}: (1, 3, 224, 224)}}) or the like",
        )
    elements = 1
    for size in sizes:
        elements *= max(size, 1)
    if elements > MAX_ELEMENTS:
        raise UnsupportedError(
            f"input {value.name!r}", f"has the shape {_shape_text(value)}", "Use a smaller one"
        )


def _shape_text(value: ValueInfoProto) -> str:
    if not value.type.tensor_type.HasField("shape"):
        return "of unknown rank"
    sizes = [
        str(dim.dim_value) if dim.dim_value > 0 else dim.dim_param or "?"
        for dim in value.type.tensor_type.shape.dim
    ]
    return f"({', '.join(sizes)})"
