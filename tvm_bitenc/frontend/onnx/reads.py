"""What a converter reads of its node: what it leaves unread would be ignored, so it is refused."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, SupportsIndex, TypeVar

import onnx
from onnx import NodeProto, TensorProto, helper
from tvm import relax

from ...errors import UnsupportedError
from .model import STANDARD, describe_node

Value = TypeVar("Value")


class Noting(dict[str, Value]):
    """A dict that notes the keys that are looked up, in a set that it may share."""

    def __init__(self, values: Mapping[str, Value] | Sequence = (), seen: set[str] | None = None):
        super().__init__(values)
        self.seen: set[str] = set() if seen is None else seen

    def __getitem__(self, key: str) -> Value:
        """Return a value, and note its key."""
        self.seen.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        """Say whether a key is here, and note it."""
        self.seen.add(str(key))
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value or a default, and note its key."""
        self.seen.add(key)
        return super().get(key, default)


class Attributes(Noting[Any]):
    """Attributes of a node; one that isn't given is what ONNX says it is by default.

    Parameters
    ----------
    node : onnx.NodeProto
    schema : onnx.defs.OpSchema or None
        None for operators that onnx doesn't know.
    seen : set of str
    """

    def __init__(self, node: NodeProto, schema: onnx.defs.OpSchema | None, seen: set[str]):
        super().__init__(given(node), seen)
        self.where = describe_node(node)
        self.defaults = {} if schema is None else _defaults(schema)

    def __missing__(self, name: str) -> Any:
        """Return what ONNX says of an attribute that isn't given."""
        if name not in self.defaults:
            raise UnsupportedError(self.where, f"has no attribute {name!r}", "Export it again")
        return self.defaults[name]

    def text(self, name: str) -> str:
        """Return an attribute that is a string."""
        value = self[name]
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


class Inputs(list[relax.Expr]):
    """Inputs of a node for TVM's converters: None beyond the last one; notes what is read."""

    def __init__(self, values: Iterable[relax.Expr | None]):
        super().__init__(values)
        self.seen: set[int] = set()

    def __getitem__(self, item: SupportsIndex | slice) -> Any:
        """Return an input or a slice of them."""
        if isinstance(item, slice):
            return [self[i] for i in range(*item.indices(len(self)))]
        index = operator.index(item)
        self.seen.add(index % len(self) if index < 0 else index)
        return super().__getitem__(index) if index < len(self) else None

    def __iter__(self) -> Iterator[relax.Expr]:
        """Go over all inputs."""
        self.seen.update(range(len(self)))
        return super().__iter__()


def schema_of(node: NodeProto, opset: int) -> onnx.defs.OpSchema | None:
    """What ONNX says of an operator, None if it isn't one of the standard."""
    return _schema(node.op_type, opset) if node.domain in STANDARD else None


@cache
def _schema(op: str, opset: int) -> onnx.defs.OpSchema | None:
    if not onnx.defs.has(op, opset, ""):
        return None
    schema = onnx.defs.get_schema(op, opset, "")
    return None if schema.deprecated else schema


def given(node: NodeProto) -> dict[str, Any]:
    """Attributes that a node states: numbers, bytes, tensors, and tuples of them."""
    return {a.name: _value(a) for a in node.attribute}


def check(
    node: NodeProto,
    schema: onnx.defs.OpSchema | None,
    attributes: set[str],
    inputs: set[str],
) -> None:
    """Refuse a node with an attribute or an input that its converter didn't read.

    Parameters
    ----------
    node : onnx.NodeProto
    schema : onnx.defs.OpSchema or None
        An attribute that is what ONNX says it is by default needn't be read.
    attributes, inputs : set of str
        Names of what was read.
    """
    defaults = {} if schema is None else _defaults(schema)
    unread = [
        name
        for name, value in given(node).items()
        if name not in attributes and not (name in defaults and value == defaults[name])
    ]
    if unread:
        raise UnsupportedError(
            describe_node(node),
            f"has attributes that its converter doesn't know: {', '.join(unread)}",
            "Export the model without them",
        )
    unread = [name for name in node.input if name and name not in inputs]
    if unread:
        raise UnsupportedError(
            describe_node(node),
            f"has inputs that its converter doesn't know: {', '.join(unread)}",
            "Export the model without them",
        )


def _defaults(schema: onnx.defs.OpSchema) -> dict[str, Any]:
    return {
        name: _value(attribute.default_value)
        for name, attribute in schema.attributes.items()
        if attribute.default_value.name
    }


def _value(attribute: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    is_list = isinstance(value, (bytes, int, float, TensorProto)) is False
    return tuple(value) if is_list and hasattr(value, "__iter__") else value
