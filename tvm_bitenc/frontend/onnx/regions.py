"""Operators on boxes: what is under each, and which of them remain."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto
from tvm import relax, tirx
from tvm.relax import op

from ...errors import UnsupportedError
from .constants import literal
from .elementwise import check_dtype, scalar
from .importer import Converter, Importer
from .model import describe_node
from .shaping import check_size, fixed_shape
from .suppression import suppression


def _roi_align(importer: Importer, node: NodeProto) -> None:
    """Read points in each box between pixels, and take the mean or the largest of each bin."""
    attributes = importer.attributes(node)
    check_dtype(importer, node, ("float32",))
    mode, samples = attributes.text("mode"), attributes["sampling_ratio"]
    moves = importer.opset >= 16 and (
        attributes.text("coordinate_transformation_mode") == "half_pixel"
    )
    shape, boxes = fixed_shape(importer, node), fixed_shape(importer, node, 1)[0]
    if not 1 <= samples <= 16 or mode not in ("avg", "max"):
        raise UnsupportedError(
            describe_node(node),
            f"has sampling_ratio {samples} in mode {mode!r}",
            "State how many points of a bin are read, 1 to 16",
        )
    emit, scale = importer.builder.emit, attributes["spatial_scale"]
    corners = op.multiply(importer.expression(node.input[1]), scalar(scale, "float32"))
    if moves:
        corners = op.subtract(corners, scalar(0.5, "float32"))
    corners = emit(corners)
    axes = [
        _points(importer, corners, axis, count, shape[2 + axis], samples, moves)
        for axis, count in enumerate((attributes["output_height"], attributes["output_width"]))
    ]
    batch = importer.expression(node.input[2])
    batch = op.minimum(op.maximum(batch, scalar(0, "int64")), scalar(shape[0] - 1, "int64"))
    importer.define(node, _bins(importer, node, axes, emit(batch), boxes, mode))


def _points(
    importer: Importer,
    corners: relax.Expr,
    axis: int,
    bins: int,
    size: int,
    samples: int,
    moves: bool,
) -> tuple[relax.Expr, relax.Expr, relax.Expr, relax.Expr]:
    """Pixels before and after each point along an axis, and the weight of each, (boxes, points)."""
    emit = importer.builder.emit
    first, last = (op.strided_slice(corners, [1], [i], [i + 1]) for i in (1 - axis, 3 - axis))
    extent = op.subtract(last, first)
    if not moves:
        extent = op.maximum(extent, scalar(1, "float32"))
    step = op.divide(extent, scalar(bins, "float32"))
    at = np.arange(bins)[:, None] + (np.arange(samples) + 0.5) / samples
    points = emit(op.add(first, op.multiply(step, literal(at.reshape(1, -1).astype("float32")))))
    zero, end = scalar(0, "float32"), scalar(size, "float32")
    is_inside = op.logical_and(
        op.greater_equal(points, scalar(-1, "float32")), op.less_equal(points, end)
    )
    points = emit(op.minimum(op.maximum(points, zero), scalar(size - 1, "float32")))
    before = emit(op.floor(points))
    part = emit(op.subtract(points, before))
    kept = emit(op.astype(is_inside, "float32"))
    index = emit(op.astype(before, "int64"))
    after = emit(op.minimum(op.add(index, scalar(1, "int64")), scalar(size - 1, "int64")))
    rest = op.subtract(scalar(1, "float32"), part)
    return index, after, emit(op.multiply(rest, kept)), emit(op.multiply(part, kept))


def _bins(
    importer: Importer, node: NodeProto, axes: list, batch: relax.Expr, boxes: int, mode: str
) -> relax.Expr:
    emit, attributes = importer.builder.emit, importer.attributes(node)
    n, channels, height, width = fixed_shape(importer, node)
    samples = attributes["sampling_ratio"]
    bins = (attributes["output_height"], attributes["output_width"])
    points = [b * samples for b in bins]
    image = emit(op.reshape(op.permute_dims(importer.expression(node.input[0]), (0, 2, 3, 1)),
                            (n * height * width, channels)))  # fmt: skip
    rows, columns = axes
    start = op.multiply(op.reshape(batch, (boxes, 1, 1)), scalar(height * width, "int64"))
    terms = []
    for y in (0, 1):
        for x in (0, 1):
            row = op.multiply(op.reshape(rows[y], (boxes, -1, 1)), scalar(width, "int64"))
            index = op.add(op.add(start, row), op.reshape(columns[x], (boxes, 1, -1)))
            value = op.take(image, emit(index), 0, mode="clip")
            weight = op.multiply(
                op.reshape(rows[2 + y], (boxes, -1, 1, 1)),
                op.reshape(columns[2 + x], (boxes, 1, -1, 1)),
            )
            terms.append(emit(op.multiply(value, weight)))
    join, reduce = (op.add, op.mean) if mode == "avg" else (op.maximum, op.max)
    read = emit(join(join(terms[0], terms[1]), join(terms[2], terms[3])))
    read = op.reshape(read, (boxes, bins[0], points[0] // bins[0], bins[1], samples, channels))
    return op.permute_dims(reduce(read, [2, 4]), (0, 3, 1, 2))


def _non_max_suppression(importer: Importer, node: NodeProto) -> None:
    """Boxes with the best scores that don't overlap; the limits may come at run time."""
    dtype = check_dtype(importer, node, ("float32",))
    boxes, scores = (importer.expression(name) for name in node.input[:2])
    batch, count, _ = fixed_shape(importer, node)
    classes = fixed_shape(importer, node, 1)[1]
    if importer.attributes(node)["center_point_box"]:
        x, y, w, h = (op.strided_slice(boxes, [2], [i], [i + 1]) for i in range(4))
        half = scalar(0.5, dtype)
        w, h = op.multiply(w, half), op.multiply(h, half)
        corners = [op.subtract(y, h), op.subtract(x, w), op.add(y, h), op.add(x, w)]
        boxes = importer.builder.emit(op.concat(corners, 2))
    limits = [
        _limit(importer, node, 2, 0, "int64"),
        _limit(importer, node, 3, 0, dtype),
        _limit(importer, node, 4, np.finfo(np.float32).min, dtype),
    ]
    rows = batch * classes * count
    check_size(node, [rows, 3])
    outputs = [((rows, 3), "int64"), ((1,), "int64"), ((count,), "int8"), ((2,), "int64")]
    function = importer.builder.add_func(suppression(batch, classes, count), "non_max_suppression")
    types = [relax.TensorType(shape, kind) for shape, kind in outputs]
    found = importer.builder.emit(relax.call_tir(function, [boxes, scores, *limits], types))
    chosen, number = (importer.builder.emit(relax.TupleGetItem(found, i)) for i in (0, 1))
    end = importer.builder.emit(op.concat([number, literal(np.array([3]))], 0))
    start, step = literal(np.array([0, 0])), literal(np.array([1, 1]))
    kept = importer.builder.emit(op.dynamic_strided_slice(chosen, start, end, step))
    shape = (tirx.Var("boxes", "int64"), 3)  # How many, only the values tell.
    importer.define(node, importer.builder.match_cast(kept, relax.TensorType(shape, "int64")))


def _limit(
    importer: Importer, node: NodeProto, index: int, default: float, dtype: str
) -> relax.Expr:
    """Return a limit as a tensor of one element."""
    value = importer.optional(node, index)
    if value is None:
        return literal(np.full(1, default, dtype))
    return importer.builder.emit(op.reshape(value, (1,)))


CONVERTERS: dict[str, Converter] = {
    "NonMaxSuppression": _non_max_suppression,
    "RoiAlign": _roi_align,
}
