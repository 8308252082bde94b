"""Pools: largest, mean and p-norm of windows, positions of the largest, and back; regions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from onnx import NodeProto
from tvm import relax
from tvm.relax import op

from ...errors import UnsupportedError
from .constants import literal
from .elementwise import FLOATS, check_dtype, scalar
from .importer import Converter, Importer
from .model import describe_node
from .shaping import check_size, fixed_shape
from .window import Window

_MOST_TAPS = 128  # Of a window that is spelled out, one operation each.


def _results(window: Window, sizes: list[int]) -> list[int]:
    """Sizes of the output of a pool; a window that would begin behind the input is left out."""
    ceil = window.attributes.get("ceil_mode", 0)
    results = []
    for i, (size, extent, stride) in enumerate(zip(sizes, window.extents, window.strides)):
        before, after = window.pads[i], window.pads[i + len(sizes)]
        steps = (size + before + after - extent) / stride
        count = (math.ceil(steps) if ceil else math.floor(steps)) + 1
        results.append(count - 1 if ceil and (count - 1) * stride >= size + before else count)
    return results


def pool(importer: Importer, node: NodeProto) -> None:
    """Convert a MaxPool or an AveragePool."""
    window = Window(importer, node, None)
    sizes, dtype = importer.shape(node.input[0]), importer.dtype(node.input[0])
    is_max = node.op_type == "MaxPool"
    check_dtype(importer, node, (*FLOATS, "int8", "uint8") if is_max else FLOATS)
    spatial = len(sizes) - 2
    if spatial not in (1, 2, 3):
        raise UnsupportedError(describe_node(node), f"pools {spatial} axes", "Use 1 to 3")
    if is_max and len(node.output) > 1 and node.output[1]:
        return _max_with_positions(importer, node, window)
    window.attributes.get("storage_order")  # It matters to the positions alone.
    includes = bool(window.attributes.get("count_include_pad", 0))
    if not is_max and _has_uneven_windows(window, sizes[2:], includes):
        return _mean_of_sums(importer, node, window, includes, dtype)
    relax_op = getattr(op.nn, f"{'max' if is_max else 'avg'}_pool{spatial}d")
    importer.define(
        node,
        relax_op(
            importer.expression(node.input[0]),
            window.kernel,
            window.strides,
            _with_ceil(window, sizes[2:]),
            window.dilations,
            False,
            includes,
            "NC" + "DHW"[3 - spatial :],
        ),
    )
    return None


def _with_ceil(window: Window, sizes: list) -> list[int]:
    """Pads that make a pool without `ceil_mode` as large as one with it."""
    if not window.attributes.get("ceil_mode", 0):
        return window.pads
    count = len(sizes)
    if not all(isinstance(size, int) for size in sizes):
        raise UnsupportedError(
            describe_node(window.node),
            "has ceil_mode and a dynamic shape",
            "Import with fixed ones",
        )
    needed = [
        (result - 1) * stride + extent - size - before
        for result, stride, extent, size, before in zip(
            _results(window, sizes), window.strides, window.extents, sizes, window.pads
        )
    ]
    return [*window.pads[:count], *(max(n, 0) for n in needed)]


def _has_uneven_windows(window: Window, sizes: list, includes: bool) -> bool:
    """Whether a mean isn't one that Relax knows: dilated, or with windows beyond what counts."""
    is_dilated = any(d != 1 for d in window.dilations)
    return is_dilated or (includes and _with_ceil(window, sizes) != window.pads)


def _taps(window: Window, results: list[int]) -> Iterator[list[slice]]:
    """Slices of a padded input, one for each position in the window."""
    if math.prod(window.kernel) > _MOST_TAPS:
        raise UnsupportedError(
            describe_node(window.node), f"has a window of {window.kernel}", "Use a smaller one"
        )
    spans = [_spans(window, results, axis) for axis in range(len(results))]
    yield from (list(slices) for slices in itertools.product(*spans))


def _spans(window: Window, results: list[int], axis: int) -> list[slice]:
    """Slices of an axis, one for each position in the window along it."""
    stride, count, dilation = window.strides[axis], results[axis], window.dilations[axis]
    starts = [offset * dilation for offset in range(window.kernel[axis])]
    return [slice(s, s + (count - 1) * stride + 1, stride) for s in starts]


def _window_sum(
    importer: Importer, x: relax.Expr, window: Window, results: list[int]
) -> relax.Expr:
    """Sum of each window, one axis after the other."""
    if sum(window.kernel) > _MOST_TAPS:
        raise UnsupportedError(
            describe_node(window.node), f"has a window of {window.kernel}", "Use a smaller one"
        )
    for axis in range(len(results)):
        parts = [
            op.strided_slice(x, [axis + 2], [s.start], [s.stop], [s.step])
            for s in _spans(window, results, axis)
        ]
        total = parts[0]
        for part in parts[1:]:
            total = importer.builder.emit(op.add(total, part), window.node.name)
        x = total
    return x


def _sliced(x: relax.Expr, slices: list[slice]) -> relax.Expr:
    return op.strided_slice(
        x,
        list(range(2, len(slices) + 2)),
        [s.start for s in slices],
        [s.stop for s in slices],
        [s.step for s in slices],
    )


def _padded(
    importer: Importer, node: NodeProto, window: Window, sizes: list, value: float
) -> relax.Expr:
    count, pads = len(sizes), _with_ceil(window, sizes)
    widths = [0] * 4 + [w for pair in zip(pads[:count], pads[count:]) for w in pair]
    x = importer.expression(node.input[0])
    if not any(widths):
        return x
    return importer.builder.emit(op.nn.pad(x, widths, "constant", value))


def _mean_of_sums(
    importer: Importer, node: NodeProto, window: Window, includes: bool, dtype: str
) -> None:
    sizes = fixed_shape(importer, node)[2:]
    results = _results(window, sizes)
    x = _padded(importer, node, window, sizes, 0.0)
    total = _window_sum(importer, x, window, results)
    count = _inside(window, sizes, includes)
    for axis in range(len(sizes)):
        spans = _spans(window, results, axis)
        outer = (slice(None),) * axis
        count = np.sum([count[outer + (span,)] for span in spans], axis=0)  # noqa: RUF005
    count = np.maximum(count, 1).astype(dtype)
    importer.define(node, op.divide(total, literal(count)))


def _inside(window: Window, sizes: list[int], includes: bool) -> np.ndarray:
    """1 where a padded input counts: in the input, or in the stated padding as well."""
    count = len(sizes)
    stated = [window.pads[:count], window.pads[count:]]
    total = _with_ceil(window, sizes)
    rest = [max(0, t - s) for t, s in zip(total[count:], stated[1])]
    if includes:
        ones = np.ones([s + a + b for s, a, b in zip(sizes, *stated)])
        return np.pad(ones, [(0, n) for n in rest])
    return np.pad(np.ones(sizes), list(zip(window.pads[:count], total[count:])))


def _max_with_positions(importer: Importer, node: NodeProto, window: Window) -> None:
    """Largest of each window, and where it stands in the flat input."""
    shape, dtype, emit = (
        fixed_shape(importer, node),
        importer.dtype(node.input[0]),
        importer.builder.emit,
    )
    sizes = shape[2:]
    results = _results(window, sizes)
    lowest = -np.inf if dtype in FLOATS else np.iinfo(dtype).min
    x = _padded(
        importer, node, window, sizes, float(np.finfo(dtype).min if dtype in FLOATS else lowest)
    )
    order: Literal["F", "C"] = "F" if window.attributes.get("storage_order", 0) else "C"
    flat = np.arange(math.prod(sizes)).reshape(sizes, order=order)
    total = _with_ceil(window, sizes)
    padding = list(zip(window.pads[: len(sizes)], total[len(sizes) :]))
    flat, inside = np.pad(flat, padding), np.pad(np.ones(sizes, bool), padding)
    best = position = None
    for slices in _taps(window, results):
        value, here = _sliced(x, slices), np.broadcast_to(flat[tuple(slices)], results)
        here = literal(np.ascontiguousarray(here)[None, None])
        value = emit(value)
        if best is None:
            best, position = value, op.broadcast_to(here, [*shape[:2], *results])
            begun = inside[tuple(slices)]
            continue
        # A position in the padding holds nothing, whatever the numbers are.
        is_inside = literal(np.ascontiguousarray(inside[tuple(slices)])[None, None])
        is_first = literal(np.ascontiguousarray(~begun)[None, None])
        larger = op.logical_and(is_inside, op.logical_or(is_first, op.greater(value, best)))
        larger = emit(larger)
        begun = begun | inside[tuple(slices)]
        best = emit(op.where(larger, value, best), node.name)
        position = emit(op.where(larger, here, position))
    planes = np.arange(shape[0] * shape[1]).reshape(*shape[:2], *[1] * len(sizes))
    offset = literal(planes * math.prod(sizes))
    importer.define(node, best)
    importer.define(node, op.add(position, offset), 1)


def _max_unpool(importer: Importer, node: NodeProto) -> None:
    """Put numbers back where a MaxPool found them."""
    window = Window(importer, node, None)
    shape, sizes = fixed_shape(importer, node), fixed_shape(importer, node)[2:]
    count = len(sizes)
    plain = [
        (size - 1) * stride - before - after + extent
        for size, stride, before, after, extent in zip(
            sizes, window.strides, window.pads[:count], window.pads[count:], window.extents
        )
    ]
    result = [*shape[:2], *plain]
    stated = result
    if len(node.input) > 2 and node.input[2]:
        stated = importer.parameter(node, 2, "output shape").tolist()
    check_size(node, result)
    check_size(node, stated)
    if len(stated) != len(result) or any(a < b for a, b in zip(stated, result)):
        raise UnsupportedError(
            describe_node(node), f"makes {stated}, less than {result}", "Leave output_shape out"
        )
    dtype, last = importer.dtype(node.input[0]), math.prod(result) - 1
    x, positions = (op.reshape(importer.expression(name), (-1,)) for name in node.input[:2])
    positions = op.minimum(op.maximum(positions, scalar(0, "int64")), scalar(last, "int64"))
    zeros = op.zeros((last + 1,), dtype)
    y = op.reshape(op.scatter_elements(zeros, positions, x, 0, "update"), result)
    rest = [w for a, b in zip(stated, result) for w in (0, a - b)]
    importer.define(node, op.nn.pad(y, rest, "constant", 0.0) if any(rest) else y)


def _global_pool(importer: Importer, node: NodeProto) -> None:
    check_dtype(importer, node, FLOATS)
    rank = len(importer.shape(node.input[0]))
    reduce = op.mean if node.op_type == "GlobalAveragePool" else op.max
    x = importer.expression(node.input[0])
    importer.define(node, reduce(x, list(range(2, rank)), True))


def _lp_pool(importer: Importer, node: NodeProto) -> None:
    """p-norm of each window."""
    dtype = check_dtype(importer, node, FLOATS)
    window = Window(importer, node, None)
    sizes, p = fixed_shape(importer, node)[2:], window.attributes["p"]
    results = _results(window, sizes)
    x = _padded(importer, node, window, sizes, 0.0)
    powers = importer.builder.emit(_power(op.abs(x), p, dtype))
    total = _window_sum(importer, powers, window, results)
    importer.define(node, _power(total, 1 / p, dtype))


def _power(x: relax.Expr, p: float, dtype: str) -> relax.Expr:
    if p == 1:
        return x
    if p == 2:
        return op.multiply(x, x)
    return op.sqrt(x) if p == 0.5 else op.power(x, scalar(p, dtype))


def _lp_norm(importer: Importer, node: NodeProto) -> None:
    """p-norm of all spatial axes, or what an axis is over its norm."""
    dtype = check_dtype(importer, node, FLOATS)
    attributes, rank = importer.attributes(node), len(importer.shape(node.input[0]))
    x, p = importer.expression(node.input[0]), attributes["p"]
    is_pool = node.op_type == "GlobalLpPool"
    axes = list(range(2, rank)) if is_pool else [attributes["axis"]]
    norm = _power(op.sum(_power(op.abs(x), p, dtype), axes, True), 1 / p, dtype)
    if is_pool:
        return importer.define(node, norm)
    norm = importer.builder.emit(norm)
    is_zero = op.equal(norm, scalar(0, dtype))
    quotient = op.divide(x, op.where(is_zero, scalar(1, dtype), norm))
    return importer.define(node, op.where(is_zero, scalar(0, dtype), quotient))


CONVERTERS: dict[str, Converter] = {
    "AveragePool": pool,
    "GlobalAveragePool": _global_pool,
    "GlobalLpPool": _lp_norm,
    "GlobalMaxPool": _global_pool,
    "LpNormalization": _lp_norm,
    "LpPool": _lp_pool,
    "MaxPool": pool,
    "MaxUnpool": _max_unpool,
}
