"""Operators that read or write at indices. None reaches outside of a tensor, whatever is fed.

An index below 0 counts from the end. One that is outside even so is an error in ONNX: a constant
one is refused here; one that comes at run time becomes the nearest that is inside.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from onnx import NodeProto
from tvm import relax
from tvm.relax import op

from ...errors import UnsupportedError
from .constants import literal
from .elementwise import scalar
from .importer import Converter, Importer
from .model import describe_node
from .shaping import axis_of, fixed_shape


def indices_within(importer: Importer, node: NodeProto, positions: ArrayLike) -> relax.Expr:
    """Return the second input of a node, its indices, counted from the front and inside.

    Parameters
    ----------
    importer : Importer
    node : onnx.NodeProto
    positions : int or ndarray of int
        Number of positions; one for each element of the last axis of the indices, or for all.

    Returns
    -------
    relax.Expr
        Of int64.
    """
    name, sizes = node.input[1], np.asarray(positions, np.int64)
    if name in importer.constants:
        values = importer.constants[name].astype(np.int64)
        if np.any(values >= sizes) or np.any(values < -sizes):
            raise UnsupportedError(
                describe_node(node), f"has an index outside of {sizes.tolist()}", "Export it again"
            )
        return literal(np.where(values < 0, values + sizes, values))
    emit, indices = importer.builder.emit, importer.expression(name)
    if importer.dtype(name) != "int64":
        indices = emit(op.astype(indices, "int64"))
    count = literal(sizes)
    indices = emit(op.where(op.less(indices, scalar(0, "int64")), op.add(indices, count), indices))
    indices = emit(op.maximum(indices, scalar(0, "int64")))
    return emit(op.minimum(indices, literal(sizes - 1)))


def _gather(importer: Importer, node: NodeProto) -> None:
    sizes = importer.shape(node.input[0])
    axis = axis_of(node, importer.attributes(node)["axis"], len(sizes))
    data = importer.expression(node.input[0])
    if not isinstance(sizes[axis], int):
        raise UnsupportedError(
            describe_node(node), "reads along an axis of a dynamic size", "Import with fixed shapes"
        )
    indices = indices_within(importer, node, sizes[axis])
    importer.define(node, op.take(data, indices, axis, mode="clip"))


def _gather_elements(importer: Importer, node: NodeProto) -> None:
    sizes, shape = fixed_shape(importer, node), fixed_shape(importer, node, 1)
    axis = axis_of(node, importer.attributes(node)["axis"], len(sizes))
    data = _cut_to(importer.expression(node.input[0]), sizes, shape, axis)
    indices = indices_within(importer, node, sizes[axis])
    importer.define(node, op.gather_elements(data, indices, axis))


def _cut_to(data: relax.Expr, sizes: list[int], shape: list[int], axis: int) -> relax.Expr:
    """Cut the axes that aren't indexed to the sizes of the indices, which may be smaller."""
    cut = [i for i, (a, b) in enumerate(zip(sizes, shape)) if i != axis and a != b]
    return op.strided_slice(data, cut, [0] * len(cut), [shape[i] for i in cut]) if cut else data


def _gather_nd(importer: Importer, node: NodeProto) -> None:
    sizes, shape = fixed_shape(importer, node), fixed_shape(importer, node, 1)
    batch = importer.attributes(node).get("batch_dims", 0)
    indices = indices_within(importer, node, sizes[batch : batch + shape[-1]])
    importer.define(node, op.gather_nd(importer.expression(node.input[0]), indices, batch))


_REDUCTIONS = {"none": "update", "add": "add", "mul": "mul", "max": "max", "min": "min"}


def _reduction(importer: Importer, node: NodeProto) -> str:
    attributes = importer.attributes(node)
    name = attributes.text("reduction") if "reduction" in attributes.defaults else "none"
    if name not in _REDUCTIONS:
        raise UnsupportedError(describe_node(node), f"reduces by {name!r}", "Use add or mul")
    return _REDUCTIONS[name]


def _scatter_elements(importer: Importer, node: NodeProto) -> None:
    sizes = fixed_shape(importer, node)
    axis = axis_of(node, importer.attributes(node)["axis"], len(sizes))
    indices = indices_within(importer, node, sizes[axis])
    data, updates = (importer.expression(node.input[i]) for i in (0, 2))
    how = _reduction(importer, node)
    importer.define(node, op.scatter_elements(data, indices, updates, axis, how))


def _scatter_nd(importer: Importer, node: NodeProto) -> None:
    sizes, shape = fixed_shape(importer, node), fixed_shape(importer, node, 1)
    indices = indices_within(importer, node, sizes[: shape[-1]])
    data, updates = (importer.expression(node.input[i]) for i in (0, 2))
    importer.define(node, op.scatter_nd(data, indices, updates, _reduction(importer, node)))


def _one_hot(importer: Importer, node: NodeProto) -> None:
    """Compare with each class: an index outside of them is none of them."""
    depth = int(importer.parameter(node, 1, "depth").item())
    shape = fixed_shape(importer, node)
    axis = axis_of(node, importer.attributes(node)["axis"], len(shape) + 1)
    indices = importer.expression(node.input[0])
    if importer.dtype(node.input[0]) != "int64":
        indices = op.astype(indices, "int64")
    if depth < 1:
        raise UnsupportedError(describe_node(node), f"has {depth} classes", "Export it again")
    below = op.less(indices, scalar(0, "int64"))
    indices = op.where(below, op.add(indices, scalar(depth, "int64")), indices)
    indices = op.reshape(indices, (*shape[:axis], 1, *shape[axis:]))
    classes = np.arange(depth).reshape([-1 if i == axis else 1 for i in range(len(shape) + 1)])
    values = importer.expression(node.input[2])
    off, on = (
        op.reshape(op.take(values, literal(np.array([i])), 0, mode="clip"), ()) for i in (0, 1)
    )
    importer.define(node, op.where(op.equal(indices, literal(classes)), on, off))


def _compress(importer: Importer, node: NodeProto) -> None:
    """Keep what a constant condition says."""
    chosen = np.flatnonzero(importer.parameter(node, 1, "condition"))
    axis, sizes = importer.attributes(node).get("axis"), fixed_shape(importer, node)
    x = importer.expression(node.input[0])
    if axis is None:
        x, axis, sizes = op.reshape(x, (-1,)), 0, [int(np.prod(sizes))]
    axis = axis_of(node, axis, len(sizes))
    if not len(chosen) or chosen[-1] >= sizes[axis]:
        raise UnsupportedError(describe_node(node), "keeps nothing, or too much", "Export it again")
    importer.define(node, op.take(x, literal(chosen.astype(np.int64)), axis, mode="clip"))


CONVERTERS: dict[str, Converter] = {
    "Compress": _compress,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "OneHot": _one_hot,
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
}
