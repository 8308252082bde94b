"""Nodes that stand for other nodes: operators that ONNX defines as functions, and branches."""

from __future__ import annotations

import onnx
import onnx.inliner
from onnx import GraphProto, NodeProto, helper

from ...errors import UnsupportedError, first_line
from .importer import Importer
from .model import describe_node
from .reads import schema_of
from .types import proto_of


def has_body(node: NodeProto, importer: Importer) -> bool:
    """Whether ONNX defines an operator by others."""
    schema = schema_of(node, importer.opset)
    if schema is None:
        return False
    # onnx's stubs lack both.
    return schema.has_function or schema.has_context_dependent_function  # type: ignore[attr-defined]


def body(node: NodeProto, importer: Importer) -> list[NodeProto]:
    """Nodes that compute the outputs of a node whose operator ONNX defines as a function.

    Parameters
    ----------
    node : onnx.NodeProto
    importer : Importer
        Knows the types of the inputs, which the function may depend on.

    Returns
    -------
    list of onnx.NodeProto
        Named after the node, so that they meet no other name of the model.
    """
    inputs = [
        helper.make_value_info(name, proto_of(name, importer))
        for name in dict.fromkeys(node.input)
        if name
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph([_with_defaults(node, importer)], "function", inputs, outputs)
    opsets = [helper.make_opsetid("", importer.opset)]
    model = helper.make_model(graph, opset_imports=opsets)
    try:
        inlined = onnx.inliner.inline_selected_functions(
            model, [("", node.op_type)], inline_schema_functions=True
        ).graph
    except Exception as error:  # The inliner has no class of errors.
        raise UnsupportedError(
            describe_node(node), f"can't be spelled out: {first_line(error)}", "Change that op"
        ) from error
    if any(inner.op_type == node.op_type for inner in inlined.node):
        raise UnsupportedError(
            describe_node(node),
            f"has no definition in operator set {importer.opset}",
            "Export the model with a later operator set",
        )
    _rename(inlined, {*node.input, *node.output}, node.name)
    return list(inlined.node)


def _with_defaults(node: NodeProto, importer: Importer) -> NodeProto:
    """Copy of a node that states all attributes, for the inliner knows no defaults."""
    full, stated = NodeProto(), {attribute.name for attribute in node.attribute}
    full.CopyFrom(node)
    schema = schema_of(node, importer.opset)
    for name, attribute in ({} if schema is None else schema.attributes).items():
        if name not in stated and attribute.default_value.name:
            full.attribute.append(attribute.default_value)
    return full


def branch(node: NodeProto, graph: GraphProto) -> list[NodeProto]:
    """Nodes of the branch of an `If` that is taken, and copies into its outputs."""
    inner = GraphProto()
    inner.CopyFrom(graph)
    names = {n for one in inner.node for n in one.output}.union(w.name for w in inner.initializer)
    outside = {n for one in inner.node for n in one.input if n not in names}
    results = [value.name for value in inner.output]
    _rename(inner, outside, node.name)
    constants = [
        helper.make_node("Constant", [], [f"{node.name}/{w.name}"], value=w)
        for w in inner.initializer
    ]
    copies = [
        helper.make_node("Identity", [f"{node.name}/{a}" if a in names else a], [b])
        for a, b in zip(results, node.output)
        if b
    ]
    return [*constants, *inner.node, *copies]


def _rename(graph: GraphProto, kept: set[str], prefix: str) -> None:
    """Put a prefix before all names of a graph but some, those in graphs inside it as well."""
    for node in graph.node:
        node.name = f"{prefix}/{node.name or node.op_type}"
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name and name not in kept:
                    names[i] = f"{prefix}/{name}"
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename(inner, kept, prefix)
                for value in (*inner.output, *inner.input, *inner.initializer):
                    if value.name not in kept:
                        value.name = f"{prefix}/{value.name}"
