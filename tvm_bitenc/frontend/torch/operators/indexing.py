"""Elements by their indices: taken and written.

Indices that count from the end are turned round, constant ones here, others when the model runs.
An index outside of its axis, for which torch raises, is refused where it is constant; at run time
it means the nearest index inside, so that no memory but the tensor's is ever touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from math import prod

import numpy as np
import torch
from tvm import relax
from tvm.ir import Expr

from ..node_call import NodeCall, constant
from .arithmetic import is_float, number

_op = relax.op
# How TVM calls what torch's `reduce` says, and a value that changes nothing there.
REDUCTIONS = {
    "sum": ("add", lambda _: 0),
    "prod": ("mul", lambda _: 1),
    "mean": ("add", lambda _: 0),
    "amax": ("max", lambda dtype: -np.inf if is_float(dtype) else np.iinfo(dtype).min),
    "amin": ("min", lambda dtype: np.inf if is_float(dtype) else np.iinfo(dtype).max),
}


def take(x: relax.Expr, indices: relax.Expr, axis: int) -> relax.Expr:
    """Elements of an axis, at indices that lie inside of it."""
    return _op.take(x, indices, axis, mode="clip")


def indices_of(call: NodeCall, node: object, size: int | Expr) -> relax.Expr | torch.Tensor:
    """Indices of an axis, counted from the front: a tensor of torch where they are constant."""
    value = call.importer.value(node)
    if value is None or not isinstance(size, int):
        return _running_indices(call, call.importer.env[node], size)
    value = torch.as_tensor(value).long()
    if value.numel() and not (-size <= int(value.min()) and int(value.max()) < size):
        worst = int(value.min()) if int(value.min()) < -size else int(value.max())
        call.refuse(f"takes index {worst} of an axis of {size}", "Use indices inside of the axis")
    return torch.where(value < 0, value + size, value)


def _running_indices(call: NodeCall, x: relax.Expr, size: int | Expr) -> relax.Expr:
    x = call.as_tensor(x, "int64")
    size = call.as_tensor(size, "int64")
    zero, one = number(0, x), number(1, x)
    x = call.emit(_op.where(_op.less(x, zero), _op.add(x, size), x))
    return call.emit(_op.minimum(_op.maximum(x, zero), _op.subtract(size, one)))


def _relax(indices: relax.Expr | torch.Tensor) -> relax.Expr:
    return constant(indices) if isinstance(indices, torch.Tensor) else indices


def select(call: NodeCall) -> relax.Expr:
    """One index of an axis, which disappears."""
    fake = call.fake("self")
    (axis,) = call.axes("dim", fake.ndim)
    index, size = call["index"], fake.shape[axis]
    if not isinstance(index, int) or (index < 0 and not isinstance(size, int)):
        call.refuse("takes an index that depends on the inputs' sizes", "Use a fixed index")
    if isinstance(size, int) and not -size <= index < size:
        call.refuse(f"takes index {index} of an axis of {size}", "Use an index inside of the axis")
    index = index % size if index < 0 else index
    return call.emit(take(call["self"], constant(np.int64(index)), axis))


def index_select(call: NodeCall) -> relax.Expr:
    """Some indices of an axis."""
    fake = call.fake("self")
    (axis,) = call.axes("dim", fake.ndim)
    if not fake.ndim:
        call.read("index")
        return call["self"]
    indices = _relax(indices_of(call, call.graph_value("index"), fake.shape[axis]))
    if not call.fake("index").ndim:
        indices = call.emit(_op.reshape(indices, (1,)))
    return call.emit(take(call["self"], indices, axis))


def embedding(call: NodeCall) -> relax.Expr:
    """Rows of a table. The other arguments are about its gradient."""
    call.read("padding_idx", "scale_grad_by_freq", "sparse")
    indices = indices_of(call, call.graph_value("indices"), call.fake("weight").shape[0])
    return call.emit(take(call["weight"], _relax(indices), 0))


def gather(call: NodeCall) -> relax.Expr:
    """Of each line along an axis, the elements at its own indices."""
    call.read("sparse_grad")
    indices, axis, x = _lines(call, call.tensor("self"))
    sizes = list(call.fake("index").shape) or [1]
    for other, size in enumerate(sizes):  # An index may cover a part of the lines alone.
        if other != axis and size != (list(call.fake("self").shape) or [1])[other]:
            x = call.emit(_op.strided_slice(x, [other], [0], [size]))
    result = call.emit(_op.gather_elements(x, indices, axis))
    return result if call.shape else call.emit(_op.reshape(result, ()))


def _lines(call: NodeCall, x: relax.Expr) -> tuple[relax.Expr, int, relax.Expr]:
    """Indices along an axis, the axis, and the tensor, of one axis at least."""
    fake = call.fake("self")
    (axis,) = call.axes("dim", fake.ndim)
    size = fake.shape[axis] if fake.ndim else 1
    indices = _relax(indices_of(call, call.graph_value("index"), size))
    if not fake.ndim:
        x = call.emit(_op.reshape(x, (1,)))
    if not call.fake("index").ndim:
        indices = call.emit(_op.reshape(indices, (1,)))
    return indices, axis, x


class _Indexed:
    """A tensor and the indices of some of its axes: these axes in front, as one."""

    def __init__(self, call: NodeCall):
        fake, given = call.fake("self"), _without_masks(call)
        self.call, self.shape = call, list(fake.shape)
        self.axes = [axis for axis, index in enumerate(given) if index is not None]
        self.others = [axis for axis in range(fake.ndim) if axis not in self.axes]
        if not all(isinstance(size, int) for size in self.shape):
            call.refuse("indexes several axes of unknown sizes", "Export it with fixed sizes")
        sizes = [self.shape[axis] for axis in self.axes]
        linear = [_scaled(call, given[axis], size) for axis, size in zip(self.axes, sizes)]
        strides = [prod(sizes[i + 1 :]) for i in range(len(sizes))]
        self.indices = _relax(_weighted_sum(call, linear, strides))

    def rows(self, x: relax.Expr) -> relax.Expr:
        """The tensor with its indexed axes as the first one."""
        x = self.call.emit(_op.permute_dims(x, [*self.axes, *self.others]))
        rest = [self.shape[axis] for axis in self.others]
        return self.call.emit(_op.reshape(x, (prod(self.shape[axis] for axis in self.axes), *rest)))

    def back(self, rows: relax.Expr) -> relax.Expr:
        """The tensor of such rows."""
        order = [*self.axes, *self.others]
        x = self.call.emit(_op.reshape(rows, [self.shape[axis] for axis in order]))
        return self.call.emit(_op.permute_dims(x, [int(axis) for axis in np.argsort(order)]))

    @property
    def front(self) -> int:
        """Where the indices' own axes stand in a result: first, if an axis lies between."""
        together = self.axes[-1] - self.axes[0] == len(self.axes) - 1
        return self.axes[0] if together else 0


def _without_masks(call: NodeCall) -> list:
    """Indices of each axis: constant masks become indices of as many axes as they have."""
    result: list = []
    for node in call.graph_value("indices"):
        if node is not None and node.meta["val"].dtype in (torch.bool, torch.uint8):
            mask = call.importer.value(node)
            if mask is None:
                call.refuse("takes as many elements as a mask has", "Use torch.where")
            result.extend(mask.bool().nonzero(as_tuple=True))
        else:
            result.append(node)
    return result


def _scaled(call: NodeCall, index: object, size: int) -> relax.Expr | torch.Tensor:
    return index if isinstance(index, torch.Tensor) else indices_of(call, index, size)


def _weighted_sum(call: NodeCall, terms: Sequence, weights: Sequence[int]):
    """Sum of products of indices, in torch where all are constant."""
    if all(isinstance(term, torch.Tensor) for term in terms):
        return reduce(torch.add, [term * weight for term, weight in zip(terms, weights)])
    terms = [_relax(term) for term in terms]
    products = [call.emit(_op.multiply(t, number(w, t))) for t, w in zip(terms, weights)]
    return reduce(lambda a, b: call.emit(_op.add(a, b)), products)


def index(call: NodeCall) -> relax.Expr:
    """Elements at lists of indices, one list for each axis that has any."""
    given = _without_masks(call)
    axes = [axis for axis, node in enumerate(given) if node is not None]
    if len(axes) == 1:
        (axis,) = axes
        indices = _scaled(call, given[axis], call.fake("self").shape[axis])
        return call.emit(take(call["self"], _relax(indices), axis))
    indexed = _Indexed(call)
    taken = call.emit(take(indexed.rows(call["self"]), indexed.indices, 0))
    new = len(indexed.indices.ty.shape)
    rest = list(range(new, new + len(indexed.others)))
    front = rest[: indexed.front]
    return call.emit(_op.permute_dims(taken, [*front, *range(new), *rest[indexed.front :]]))


def index_put(call: NodeCall) -> relax.Expr:
    """The tensor with other elements at lists of indices."""
    indexed = _Indexed(call)
    rows = indexed.rows(call["self"])
    taken = list(indexed.indices.ty.shape)
    rest = [indexed.shape[axis] for axis in indexed.others]
    before, behind = rest[: indexed.front], rest[indexed.front :]
    values = call.emit(_op.broadcast_to(call["values"], [*before, *taken, *behind]))
    start = len(before)
    order = [
        *range(start, start + len(taken)),
        *range(start),
        *range(start + len(taken), len(taken) + len(rest)),
    ]
    count = prod(int(size) for size in taken)
    values = call.emit(_op.reshape(call.emit(_op.permute_dims(values, order)), (count, *rest)))
    indices = call.emit(_op.reshape(indexed.indices, (count, *[1] * len(rest))))
    indices = call.emit(_op.broadcast_to(indices, (count, *rest)))
    reduction = "add" if call["accumulate"] else "update"
    return indexed.back(_scattered(call, rows, indices, values, 0, reduction))


def _scattered(
    call: NodeCall,
    x: relax.Expr,
    indices: relax.Expr,
    values: relax.Expr,
    axis: int,
    reduction: str,
) -> relax.Expr:
    """``scatter_elements``, of truth values by way of integers."""
    dtype = str(x.ty.dtype)
    if dtype == "bool":
        if reduction != "update":
            call.refuse("adds truth values", "Convert them to integers")
        x, values = call.cast(x, "int8"), call.cast(values, "int8")
    written = call.emit(_op.scatter_elements(x, indices, values, axis, reduction))
    return call.cast(written, dtype)


def scatter(call: NodeCall, reduction: str = "update") -> relax.Expr:
    """The tensor with other elements at indices along an axis."""
    indices, axis, x = _lines(call, call.tensor("self"))
    written = _scattered(call, x, indices, _source(call, indices), axis, reduction)
    return written if call.shape else call.emit(_op.reshape(written, ()))


def _source(call: NodeCall, indices: relax.Expr) -> relax.Expr:
    """What is written: a number, or as much of a tensor as there are indices."""
    shape = list(indices.ty.shape)
    if "value" in call:
        return call.emit(_op.broadcast_to(call.tensor("value", call.dtype), shape))
    source = call.tensor("src")
    if not call.fake("src").ndim:
        source = call.emit(_op.reshape(source, (1,)))
    for axis, (size, wanted) in enumerate(zip(source.ty.shape, shape)):
        if int(size) != int(wanted):
            source = call.emit(_op.strided_slice(source, [axis], [0], [wanted]))
    return source


def scatter_add(call: NodeCall) -> relax.Expr:
    """Sums of a tensor's elements, and those of another at indices along an axis."""
    return scatter(call, "add")


def scatter_reduce(call: NodeCall) -> relax.Expr:
    """The same with products, means and extremes."""
    name, dtype = call["reduce"], call.dtype
    reduction, neutral = REDUCTIONS[name]
    indices, axis, x = _lines(call, call.tensor("self"))
    if dtype == "bool":
        call.refuse("reduces truth values", "Convert them to integers")
    source = _source(call, indices)
    ones, zeros = _op.ones_like(source), _op.zeros_like(x)
    counts = call.emit(_op.scatter_elements(zeros, indices, ones, axis, "add"))
    if call["include_self"]:
        counts = call.emit(_op.add(counts, number(1, x)))
    else:
        touched = _op.greater(counts, number(0, x))
        x = call.emit(_op.where(touched, number(neutral(dtype), x), x))
    result = call.emit(_op.scatter_elements(x, indices, source, axis, reduction))
    if name == "mean":
        counts = call.emit(_op.maximum(counts, number(1, x)))
        quotient = _op.divide if is_float(dtype) else _op.floor_divide
        result = call.emit(quotient(result, counts))
    return result if call.shape else call.emit(_op.reshape(result, ()))


OPERATORS: dict[str, Callable] = {
    "embedding.default": embedding,
    "gather.default": gather,
    "index.Tensor": index,
    "_unsafe_index.Tensor": index,
    "index_put.default": index_put,
    "_unsafe_index_put.default": index_put,
    "index_select.default": index_select,
    "scatter.src": scatter,
    "scatter.value": scatter,
    "scatter_add.default": scatter_add,
    "scatter_reduce.two": scatter_reduce,
    "select.int": select,
}
