"""Reductions, running sums, sorting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch.fx import Node
from tvm import relax

from ..names import base_name, op_base_name
from ..node_call import NodeCall, constant
from . import quantizers
from .arithmetic import is_float, number

_op = relax.op
_MOVING = ("getitem", "max_pool2d_with_indices", "permute", "relu", "slice", "view")
_QUANTIZERS = frozenset(map(op_base_name, quantizers.OPERATORS))


def reduction(op: Callable) -> Callable[[NodeCall], relax.Expr]:
    """Reduce some axes, or all, in the dtype of the result."""

    def convert(call: NodeCall) -> relax.Expr:
        call.read("dtype")
        x = call.tensor("self", call.dtype)
        return _reduced(call, op, x)

    return convert


def _reduced(call: NodeCall, op: Callable, x: relax.Expr) -> relax.Expr:
    rank, keep = call.fake("self").ndim, "keepdim" in call and call["keepdim"]
    axes = call.axes("dim", rank) if "dim" in call else list(range(rank))
    call.read("dim", "keepdim")
    if not rank:
        return x
    result = call.emit(op(x, axes, keepdims=bool(keep)))
    return call.cast(result, str(x.ty.dtype))


def extreme(op: Callable) -> Callable[[NodeCall], relax.Expr]:
    """Largest or smallest element of some axes."""

    def convert(call: NodeCall) -> relax.Expr:
        x = _ordered(call, call.tensor("self"))
        result = call.cast(_reduced(call, op, x), call.dtype)
        if not is_float(call.dtype) or _holds_numbers(call.graph_value("self")):
            return result
        nan = _reduced(call, _op.max, call.cast(call.emit(_op.isnan(x)), "int8"))
        return call.emit(_op.where(call.cast(nan, "bool"), number(np.nan, x), result))

    return convert


def _holds_numbers(node: Node) -> bool:
    """Whether a tensor is some quantizer's, moved about: TVM's extremes pass over NaN."""
    while base_name(node) in _MOVING:
        node = node.all_input_nodes[0]
    return base_name(node) in _QUANTIZERS


def _ordered(call: NodeCall, x: relax.Expr) -> relax.Expr:
    """Truth values as integers, which have an order."""
    return call.cast(x, "int8") if str(x.ty.dtype) == "bool" else x


def any_(call: NodeCall) -> relax.Expr:
    """Whether any element isn't zero; of no elements, none is."""
    x = call.cast(call.tensor("self", "bool"), "int32")
    return call.cast(_reduced(call, _op.sum, x), call.dtype)


def arg_extreme(op: Callable) -> Callable[[NodeCall], relax.Expr]:
    """Index of the largest or smallest element, of one axis or of all elements in a row."""

    def convert(call: NodeCall) -> relax.Expr:
        keep = call["keepdim"]
        if "dim" in call:
            return _arg_extreme(call, op, keep)
        call.read("dim")
        flat = call.emit(_op.reshape(_ordered(call, call.tensor("self")), (-1,)))
        return call.emit(_op.reshape(call.emit(op(flat, 0)), call.shape))

    return convert


def _arg_extreme(call: NodeCall, op: Callable, keep: bool) -> relax.Expr:
    rank = call.fake("self").ndim
    (axis,) = call.axes("dim", rank)
    if not rank:
        return constant(np.zeros((), np.int64))
    return call.emit(op(_ordered(call, call.tensor("self")), axis, keep))


def extreme_with_index(op: Callable, arg_op: Callable) -> Callable[[NodeCall], tuple]:
    """Largest or smallest elements of an axis, and where they are."""

    def convert(call: NodeCall) -> tuple:
        values = extreme(op)(call)
        index = _arg_extreme(call, arg_op, call["keepdim"]) if call.is_used(1) else None
        return values, index

    return convert


def variance(call: NodeCall) -> relax.Expr:
    """Variance, divided by the count of elements less a correction."""
    return variance_and_mean(call)[0]


def variance_and_mean(call: NodeCall) -> tuple[relax.Expr, relax.Expr]:
    """Variance, and the mean beside it."""
    x, rank = call.tensor("self"), call.fake("self").ndim
    axes, keep = call.axes("dim", rank), bool(call["keepdim"])
    correction = 1 if call["correction"] is None else call["correction"]
    sizes = [call.fake("self").shape[axis] for axis in axes]
    if not all(isinstance(size, int) for size in sizes):
        call.refuse("reduces an axis of unknown size", "Export it with fixed sizes")
    count = int(np.prod(sizes))
    if not count:
        call.refuse("reduces an axis without elements", "Leave it out")
    mean = call.emit(_op.mean(x, axes, keepdims=True)) if rank else x
    difference = call.emit(_op.subtract(x, mean))
    squares = call.emit(_op.multiply(difference, difference))
    total = call.emit(_op.sum(squares, axes, keepdims=keep)) if rank else squares
    result = call.emit(_op.divide(total, number(max(count - correction, 0), x)))
    return result, call.emit(_op.reshape(mean, list(total.ty.shape)))


def running(op: Callable) -> Callable[[NodeCall], relax.Expr]:
    """Running sums or products along an axis."""

    def convert(call: NodeCall) -> relax.Expr:
        call.read("dtype")
        x, rank = call.tensor("self", call.dtype), call.fake("self").ndim
        (axis,) = call.axes("dim", rank)
        return call.emit(op(x, axis, call.dtype)) if rank else x

    return convert


def softmax(op: Callable) -> Callable[[NodeCall], relax.Expr]:
    """Softmax, or its logarithm, along an axis."""

    def convert(call: NodeCall) -> relax.Expr:
        call.read("half_to_float")
        x, rank = call.tensor("self", call.dtype), call.fake("self").ndim
        (axis,) = call.axes("dim", rank)
        if rank:
            return call.emit(op(x, axis))
        return call.emit(_op.reshape(op(call.emit(_op.reshape(x, (1,))), 0), ()))

    return convert


def sort(call: NodeCall) -> tuple[relax.Expr, relax.Expr]:
    """Sorted values and where they were; equal ones keep their order."""
    call.read("stable")
    rank = call.fake("self").ndim
    (axis,) = call.axes("dim", rank)
    x = _sortable(call, call.tensor("self"))
    if not rank:
        call.read()
        return call.tensor("self"), constant(np.zeros((), np.int64))
    indices = call.emit(_op.argsort(x, axis, bool(call["descending"]), dtype="int64"))
    return call.emit(_op.gather_elements(call.tensor("self"), indices, axis)), indices


def topk(call: NodeCall) -> tuple[relax.Expr, relax.Expr]:
    """The largest or smallest elements of an axis, sorted whether asked for or not."""
    call.read("sorted")
    rank = call.fake("self").ndim
    (axis,), (count,) = call.axes("dim", rank), call.ints("k")
    x = _sortable(call, call.tensor("self"))
    if not rank:
        call.read()
        return call.tensor("self"), constant(np.zeros((), np.int64))
    order = call.emit(_op.argsort(x, axis, bool(call["largest"]), dtype="int64"))
    indices = call.emit(_op.strided_slice(order, [axis], [0], [count]))
    return call.emit(_op.gather_elements(call.tensor("self"), indices, axis)), indices


def kth_value(call: NodeCall) -> tuple[relax.Expr, relax.Expr]:
    """The k-th smallest element of each line along an axis, and where it is."""
    (count,) = call.ints("k")
    return _ranked(call, count - 1)


def median(call: NodeCall) -> tuple[relax.Expr, relax.Expr]:
    """The lower of the two elements in the middle."""
    (axis,), shape = call.axes("dim", call.fake("self").ndim), call.fake("self").shape
    size = shape[axis] if shape else 1
    if not isinstance(size, int):
        call.refuse("takes the middle of an axis of unknown size", "Export it with fixed sizes")
    return _ranked(call, (size - 1) // 2)


def _ranked(call: NodeCall, rank: int) -> tuple[relax.Expr, relax.Expr]:
    x = call.tensor("self")
    (axis,) = call.axes("dim", call.fake("self").ndim)
    call.read("keepdim")
    if not call.fake("self").ndim:
        return x, constant(np.zeros((), np.int64))
    order = call.emit(_op.argsort(_sortable(call, x), axis, False, dtype="int64"))
    index = call.emit(_op.strided_slice(order, [axis], [rank], [rank + 1]))
    values = call.emit(_op.gather_elements(x, index, axis))
    return tuple(call.emit(_op.reshape(part, call.shape)) for part in (values, index))


def median_of_all(call: NodeCall) -> relax.Expr:
    """The same of all elements."""
    shape = call.fake("self").shape
    if not all(isinstance(size, int) for size in shape):
        call.refuse("takes the middle of unknown sizes", "Export it with fixed sizes")
    flat = call.emit(_op.reshape(call.tensor("self"), (-1,)))
    rank = (int(np.prod(shape)) - 1) // 2
    order = call.emit(_op.argsort(_sortable(call, flat), 0, False, dtype="int64"))
    index = call.emit(_op.strided_slice(order, [0], [rank], [rank + 1]))
    return call.emit(_op.reshape(_op.take(flat, index, 0, mode="clip"), ()))


def bucketize(call: NodeCall) -> relax.Expr:
    """Between which of sorted boundaries numbers lie."""
    x, boundaries = call.tensor("self"), call.tensor("boundaries")
    wide = str(x.ty.dtype) if is_float(str(x.ty.dtype)) else str(boundaries.ty.dtype)
    x, boundaries = call.cast(x, wide), call.cast(boundaries, wide)
    return call.emit(_op.bucketize(x, boundaries, bool(call["out_int32"]), bool(call["right"])))


def _sortable(call: NodeCall, x: relax.Expr) -> relax.Expr:
    """In a dtype that TVM's sort knows."""
    dtype = str(x.ty.dtype)
    wide = dtype if is_float(dtype) else "int64"
    return call.cast(x, wide)


OPERATORS: dict[str, Callable] = {
    "_log_softmax.default": softmax(_op.nn.log_softmax),
    "_softmax.default": softmax(_op.nn.softmax),
    "amax.default": extreme(_op.max),
    "amin.default": extreme(_op.min),
    "any.default": any_,
    "any.dim": any_,
    "any.dims": any_,
    "argmax.default": arg_extreme(_op.argmax),
    "argmin.default": arg_extreme(_op.argmin),
    "bucketize.Tensor": bucketize,
    "cumprod.default": running(_op.cumprod),
    "cumsum.default": running(_op.cumsum),
    "kthvalue.default": kth_value,
    "max.default": extreme(_op.max),
    "max.dim": extreme_with_index(_op.max, _op.argmax),
    "mean.default": reduction(_op.mean),
    "mean.dim": reduction(_op.mean),
    "median.default": median_of_all,
    "median.dim": median,
    "min.default": extreme(_op.min),
    "min.dim": extreme_with_index(_op.min, _op.argmin),
    "prod.default": reduction(_op.prod),
    "prod.dim_int": reduction(_op.prod),
    "sort.default": sort,
    "sort.stable": sort,
    "sum.default": reduction(_op.sum),
    "sum.dim_IntList": reduction(_op.sum),
    "topk.default": topk,
    "var.correction": variance,
    "var_mean.correction": variance_and_mean,
}
