"""What ONNX says of the outputs of a node, and whether a converter kept to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TypeProto, helper, numpy_helper
from tvm import relax

from ...errors import UnsupportedError, first_line
from .importer import Importer
from .model import STANDARD, describe_node
from .reads import schema_of

_NAMES = {"float32": "float", "float64": "double"}  # Of ONNX, where they aren't numpy's.
_MOST_DATA = 64  # Elements of a constant that ONNX's inference may look at: shapes, axes, pads.
# Of the tensors of a network, weights included; narrower ones are unpacked before they are used.
TYPES = frozenset(
    ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
).union(("float32", "float64"))


@dataclass(frozen=True)
class Type:
    """Type of a tensor: each size is an integer, a symbol's name, or None where it isn't known."""

    dtype: str
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        """Show the type as messages do."""
        if self.shape is None:
            return f"{self.dtype} of any shape"
        return f"{self.dtype} ({', '.join(str(size or '?') for size in self.shape)})"


def expected(
    node: NodeProto, importer: Importer
) -> tuple[dict[str, Type], UnsupportedError | None]:
    """Types of the outputs of a node, as ONNX infers them from what is known of its inputs.

    Parameters
    ----------
    node : onnx.NodeProto
    importer : Importer

    Returns
    -------
    types : dict of str to Type
        Without the outputs that ONNX says nothing of.
    invalid : UnsupportedError or None
        What to raise if ONNX's inference refuses the node.
    """
    schema = schema_of(node, importer.opset)
    names = [name for name in node.input if name]
    untyped = (importer.sequences, importer.sizes)
    if schema is None or any(name in table for name in names for table in untyped):
        return {}, None
    data = {
        name: numpy_helper.from_array(importer.constants[name], name)
        for name in names
        if name in importer.constants and importer.constants[name].size <= _MOST_DATA
    }
    opsets = [helper.make_opsetid(domain, importer.opset) for domain in STANDARD]
    try:
        inferred = onnx.shape_inference.infer_node_outputs(
            schema, node, {name: proto_of(name, importer) for name in names}, data, None, opsets
        )
    except Exception as error:  # ONNX's inference has no class of errors that is public.
        return {}, UnsupportedError(
            describe_node(node), f"isn't valid: {_cause(error)}", "Export the model again"
        )
    types = {name: type_of(proto) for name, proto in inferred.items()}
    return {name: kind for name, kind in types.items() if kind is not None}, None


def check(node: NodeProto, importer: Importer, types: dict[str, Type]) -> None:
    """Refuse a node whose outputs, as converted, aren't what ONNX says.

    Parameters
    ----------
    node : onnx.NodeProto
    importer : Importer
        Where the outputs are defined.
    types : dict of str to Type
        What `expected` returned.
    """
    for i, name in enumerate(node.output):
        if not name:
            continue
        if not importer.knows(name):
            raise UnsupportedError(
                describe_node(node),
                f"its output {i} isn't computed by its converter",
                "Export the model without that output",
            )
        if name in importer.sequences or name in importer.sizes:
            continue
        found = found_type(name, importer)
        is_stored = name in importer.constants or name in importer.codes
        if found.dtype not in TYPES and not is_stored:
            raise UnsupportedError(
                describe_node(node), f"its output {i} is {found.dtype}", "Use float32 or integers"
            )
        if name in types and not agree(found, types[name]):
            raise UnsupportedError(
                describe_node(node),
                f"its output {i} would be {found}, and ONNX says {types[name]}",
                "Report it, with the model",
            )


def agree(found: Type, stated: Type) -> bool:
    """Whether a tensor is what was stated of it, as far as both are known."""
    if found.dtype != stated.dtype:
        return False
    if found.shape is None or stated.shape is None:
        return True
    return len(found.shape) == len(stated.shape) and all(
        a == b or a is None or b is None or (isinstance(a, str) and isinstance(b, str))
        for a, b in zip(found.shape, stated.shape)
    )


def type_of(proto: TypeProto) -> Type | None:
    """Return a type as ONNX states it, None for what is no tensor or of an unknown type."""
    tensor = proto.tensor_type
    if proto.WhichOneof("value") != "tensor_type" or not tensor.elem_type:
        return None
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    if not tensor.HasField("shape"):
        return Type(dtype, None)
    sizes = (d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim)
    return Type(dtype, tuple(None if size in ("", -1) else size for size in sizes))


def found_type(name: str, importer: Importer) -> Type:
    """Type of a tensor as it has been converted."""
    dtype = importer.dtype(name)
    if name not in importer.constants and name not in importer.codes:
        kind = importer.expression(name).ty
        if not isinstance(kind.shape, relax.ShapeExpr):
            return Type(dtype, None if kind.ndim < 0 else (None,) * kind.ndim)
    sizes = importer.shape(name)
    return Type(dtype, tuple(n if isinstance(n, int) else str(n) for n in sizes))


def proto_of(name: str, importer: Importer) -> TypeProto:
    """Type of a tensor as it has been converted, as ONNX states it."""
    kind = found_type(name, importer)
    element = onnx.TensorProto.DataType.Value(_NAMES.get(kind.dtype, kind.dtype).upper())
    return helper.make_tensor_type_proto(element, kind.shape)


def _cause(error: Exception) -> str:
    """Return the cause that ONNX's inference gives, without the kind of its error."""
    return first_line(error).split("InferenceError] ")[-1]
