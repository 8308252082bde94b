"""Sequences whose length is known at import: lists of tensors, of which the module has none."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto
from tvm import relax
from tvm.relax import op

from ...errors import UnsupportedError
from .importer import Converter, Importer
from .model import describe_node
from .shaping import axis_of


def _sequence(importer: Importer, node: NodeProto) -> list[str]:
    name = node.input[0]
    if name not in importer.sequences:
        raise UnsupportedError(
            describe_node(node), f"reads {name!r}, which isn't made in this graph", "Use tensors"
        )
    return importer.sequences[name]


def _position(importer: Importer, node: NodeProto, index: int, count: int) -> int:
    """Constant position in a sequence of some length."""
    position = int(importer.parameter(node, index, "position").item())
    if not -count <= position < count:
        raise UnsupportedError(
            describe_node(node), f"takes position {position} of {count}", "Export the model again"
        )
    return position % count


def _construct(importer: Importer, node: NodeProto) -> None:
    importer.read_inputs.update(node.input)
    importer.sequences[node.output[0]] = list(node.input)


def _empty(importer: Importer, node: NodeProto) -> None:
    importer.attributes(node).get("dtype")  # It is that of what is inserted.
    importer.sequences[node.output[0]] = []


def _insert(importer: Importer, node: NodeProto) -> None:
    names = list(_sequence(importer, node))
    at = len(names)
    if len(node.input) > 2 and node.input[2]:
        at = _position(importer, node, 2, len(names) + 1)
        if int(importer.constants[node.input[2]].item()) < 0:
            at = (at - 1) % (len(names) + 1)  # Counted from the end of the sequence as it was.
    importer.read_inputs.add(node.input[1])
    importer.sequences[node.output[0]] = [*names[:at], node.input[1], *names[at:]]


def _erase(importer: Importer, node: NodeProto) -> None:
    names = list(_sequence(importer, node))
    at = len(names) - 1
    if len(node.input) > 1 and node.input[1]:
        at = _position(importer, node, 1, len(names))
    importer.sequences[node.output[0]] = [*names[:at], *names[at + 1 :]]


def _at(importer: Importer, node: NodeProto) -> None:
    names = _sequence(importer, node)
    importer.alias(names[_position(importer, node, 1, len(names))], node.output[0])


def _length(importer: Importer, node: NodeProto) -> None:
    importer.constants[node.output[0]] = np.array(len(_sequence(importer, node)), np.int64)


def _split(importer: Importer, node: NodeProto) -> None:
    shape, attributes = importer.shape(node.input[0]), importer.attributes(node)
    axis = axis_of(node, attributes["axis"], len(shape))
    size, keep = shape[axis], bool(attributes.get("keepdims", 1))
    if not isinstance(size, int):
        raise UnsupportedError(
            describe_node(node), "splits an axis of a dynamic size", "Import with fixed shapes"
        )
    parts = np.ones(size, np.int64)
    if len(node.input) > 1 and node.input[1]:
        parts, keep = importer.parameter(node, 1, "split"), True
        if parts.ndim == 0:
            part = int(parts)
            parts = np.array([min(part, size - at) for at in range(0, size, part)])
    if parts.sum() != size or np.any(parts < 1):
        raise UnsupportedError(
            describe_node(node), f"splits {size} into {parts.tolist()}", "Export the model again"
        )
    names, end, x = [], 0, importer.expression(node.input[0])
    for i, part in enumerate(parts.tolist()):
        value = op.strided_slice(x, [axis], [end], [end + part])
        if not keep:
            value = op.squeeze(value, [axis])
        names.append(f"{node.output[0]}/{i}")
        importer.expressions[names[-1]] = importer.builder.emit(value, node.name)
        end += part
    importer.sequences[node.output[0]] = names


def _concat(importer: Importer, node: NodeProto) -> None:
    names, attributes = _sequence(importer, node), importer.attributes(node)
    is_new = bool(attributes["new_axis"])
    if not names:
        raise UnsupportedError(describe_node(node), "joins nothing", "Export the model again")
    rank = len(importer.shape(names[0])) + is_new
    axis = axis_of(node, attributes["axis"], rank)
    parts: list[relax.Expr] = [importer.expression(name) for name in names]
    importer.define(node, op.stack(parts, axis) if is_new else op.concat(parts, axis))


CONVERTERS: dict[str, Converter] = {
    "ConcatFromSequence": _concat,
    "SequenceAt": _at,
    "SequenceConstruct": _construct,
    "SequenceEmpty": _empty,
    "SequenceErase": _erase,
    "SequenceInsert": _insert,
    "SequenceLength": _length,
    "SplitToSequence": _split,
}
