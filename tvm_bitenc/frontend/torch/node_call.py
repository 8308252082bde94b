"""One call of an operator in an exported graph, as a converter reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch._ops import OpOverload
from torch.fx import Node
from torch.fx.node import map_aggregate
from tvm import relax
from tvm.ir import Expr, GenericConst, is_prim_expr

from ...errors import UnsupportedError
from .checks import dtype_of
from .names import where_of
from .sizes import Sizes

# They say where and how tensors are stored: a compiled model has one device and one layout.
STORAGE = frozenset(["memory_format", "device", "pin_memory", "non_blocking", "layout"])


class Walk(Protocol):
    """What converters ask of the importer.

    Attributes
    ----------
    env : mapping of Node to relax.Expr
        What has become of the nodes so far; several results, numbers and None among them.
    sizes : Sizes
    """

    env: Mapping[object, Any]
    sizes: Sizes

    def emit(self, expr: relax.Expr) -> relax.Var:
        """Emit a binding, named after the layer at hand."""

    def _emit_torch_reshape(self, x: relax.Expr, shape: Sequence) -> relax.Var:
        """TVM's: Relax reads a size of 0 as "as before", torch as 0."""

    def value(self, argument: object) -> Any:
        """Value of an argument that is a number or constant; None for any other tensor."""


class NodeCall:
    """A node whose arguments are read by their names in the operator's schema.

    What a converter doesn't read has to have its default, so that no argument can be overlooked.

    Parameters
    ----------
    node : torch.fx.Node
    importer : Walk
    """

    def __init__(self, node: Node, importer: Walk):
        self.node, self.importer = node, importer
        self._given = _bound(node)
        self._read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        """An argument: tensors as Relax expressions, anything else as it is."""
        return map_aggregate(self.graph_value(name), self._expression)

    def optional(self, name: str) -> Any:
        """An argument that not every variant of an operator has."""
        return self[name] if name in self._given else None

    def __contains__(self, name: str) -> bool:
        """Whether the operator has an argument of this name, and it isn't None."""
        return self._given.get(name) is not None

    def graph_value(self, name: str) -> Any:
        """An argument as the graph has it: tensors as nodes."""
        self._read.add(name)
        return self._given[name]

    def read(self, *names: str) -> None:
        """Say that arguments are honoured, though not read: the shape of the result has them."""
        self._read.update(names or self._given)

    def value(self, name: str) -> Any:
        """A number or constant tensor; None if it is computed when the model runs."""
        return self.importer.value(self.graph_value(name))

    def fake(self, name: str) -> torch.Tensor:
        """What torch knows of a tensor among the arguments."""
        return self.graph_value(name).meta["val"]

    def ints(self, name: str) -> list[int]:
        """A list of fixed sizes, offsets or axes."""
        values = self.graph_value(name)
        values = list(values) if isinstance(values, (list, tuple)) else [values]
        if not all(isinstance(v, int) for v in values):
            self.refuse(f"its {name} depends on the inputs' sizes", "Export it with fixed sizes")
        return values

    def axes(self, name: str, rank: int) -> list[int]:
        """Axes, counted from the front; all of them where torch has none or an empty list."""
        if name not in self or self._given[name] in ([], ()):
            self._read.add(name)
            return list(range(rank))
        return [axis % max(rank, 1) for axis in self.ints(name)]

    def unread(self) -> list[str]:
        """Arguments that nobody read, and that aren't at their defaults."""
        defaults = {a.name: a.default_value for a in _schema(self.node)}
        return [
            name
            for name, value in self._given.items()
            if name not in self._read | STORAGE
            and (isinstance(value, Node) or not _same(value, defaults.get(name)))
        ]

    @property
    def operator(self) -> OpOverload:
        """The operator, which computes on torch's tensors."""
        return _operator(self.node)

    @property
    def arguments(self) -> list[str]:
        """Names of the arguments in the operator's schema."""
        return [argument.name for argument in _schema(self.node)]

    @property
    def output(self) -> torch.Tensor:
        """What torch knows of the result, or of the first of them."""
        value = self.node.meta["val"]
        return value[0] if isinstance(value, (list, tuple)) else value

    @property
    def dtype(self) -> str:
        """TVM's dtype of the (first) result."""
        return dtype_of(self.output, self.where)

    @property
    def shape(self) -> list[int | Expr]:
        """Shape of the (first) result."""
        return self.importer.sizes.shape(self.output)

    @property
    def where(self) -> str:
        """Operator and layer, for messages."""
        return where_of(self.node)

    def is_used(self, index: int) -> bool:
        """Whether anything reads one of several results."""
        return any(user.args[1] == index for user in self.node.users)

    def emit(self, expr: relax.Expr) -> relax.Var:
        """Emit a binding."""
        return self.importer.emit(expr)

    def tensor(self, name: str, dtype: str | None = None) -> relax.Expr:
        """An argument as a tensor: numbers become constants; cast where a dtype is given."""
        return self.as_tensor(self[name], dtype)

    def as_tensor(self, value: Any, dtype: str | None = None) -> relax.Expr:
        """The same of a number, size or expression."""
        if isinstance(value, relax.Expr) and isinstance(value.ty, relax.TensorType):
            return value if dtype is None else self.cast(value, dtype)
        if is_prim_expr(value):
            shape = self.emit(relax.op.shape_to_tensor(relax.ShapeExpr([value])))
            return self.cast(self.emit(relax.op.reshape(shape, ())), dtype or "int64")
        if dtype is None:
            dtype = dtype_of(torch.as_tensor(value), self.where)
        return constant(np.asarray(value).astype(dtype))

    def cast(self, x: relax.Expr, dtype: str) -> relax.Expr:
        """Cast as torch does: whatever isn't zero is true."""
        source = str(x.ty.dtype)
        if source == dtype:
            return x
        if dtype == "bool":
            # TVM's "not equal" is false for what is no number.
            return self.emit(
                relax.op.logical_not(relax.op.equal(x, constant(np.zeros((), source))))
            )
        return self.emit(relax.op.astype(x, dtype))

    def full(self, value: relax.Expr) -> relax.Var:
        """The result, filled with one number."""
        return self.emit(relax.op.full(relax.ShapeExpr(self.shape), value, self.dtype))

    def refuse(self, cause: str, cure: str) -> NoReturn:
        """Raise the error that names this operator and its layer."""
        raise UnsupportedError(self.where, cause, cure)

    def _expression(self, value: object) -> Any:
        return self.importer.env[value] if isinstance(value, Node) else value


def constant(value: torch.Tensor | ArrayLike) -> GenericConst:
    """A constant of exactly this dtype: without one, `relax.const` would narrow 64 bits."""
    array = array_of(value) if isinstance(value, torch.Tensor) else np.asarray(value)
    return relax.const(array, str(array.dtype))


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's values. DLPack would drop the bits that say "negated" and "conjugated"."""
    dense = tensor.detach()
    if dense.layout != torch.strided:
        raise UnsupportedError("from_torch", f"a constant is {dense.layout}", "Use dense tensors")
    array = dense.resolve_conj().resolve_neg().cpu().numpy()
    return array if array.flags.c_contiguous else array.copy()


def _bound(node: Node) -> dict[str, Any]:
    """Arguments of a node by name, those with a default included."""
    arguments = _schema(node)
    bound = {a.name: a.default_value for a in arguments if a.has_default_value()}
    bound.update(zip((a.name for a in arguments), node.args))
    return {**bound, **node.kwargs}


def _operator(node: Node) -> OpOverload:
    if not isinstance(node.target, OpOverload):
        raise UnsupportedError(where_of(node), "has no schema", "Use operators of torch")
    return node.target


def _schema(node: Node) -> list[torch.Argument]:
    return list(_operator(node)._schema.arguments)


def _same(value: object, default: object) -> bool:
    if isinstance(value, (list, tuple)) and isinstance(default, (list, tuple)):
        return list(value) == list(default)
    return value is default or value == default
