"""Pooling: averages and largest elements of windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
import torch
from tvm import relax

from ..node_call import NodeCall, constant
from .arithmetic import is_float, number
from .indexing import take
from .products import per_axis

_op = relax.op
_LAYOUTS = {1: "NCW", 2: "NCHW", 3: "NCDHW"}
_AVERAGE = {1: _op.nn.avg_pool1d, 2: _op.nn.avg_pool2d, 3: _op.nn.avg_pool3d}
_LARGEST = {1: _op.nn.max_pool1d, 2: _op.nn.max_pool2d, 3: _op.nn.max_pool3d}
_ADAPTIVE = {
    1: _op.nn.adaptive_avg_pool1d,
    2: _op.nn.adaptive_avg_pool2d,
    3: _op.nn.adaptive_avg_pool3d,
}


def _batched(call: NodeCall, spatial: int) -> relax.Expr:
    """The images, with an axis for the batch."""
    x = call["self"]
    shape = list(x.ty.shape)
    return x if len(shape) == spatial + 2 else call.emit(_op.reshape(x, [1, *shape]))


def _result(call: NodeCall, y: relax.Expr) -> relax.Expr:
    """Without that axis, if the images had none."""
    return y if len(y.ty.shape) == len(call.shape) else call.emit(_op.reshape(y, call.shape))


class _Window:
    """Sizes of a window along the axes of an image, and how far it reaches behind the end."""

    def __init__(self, call: NodeCall, spatial: int):
        self.size = per_axis(call.ints("kernel_size"), spatial)
        self.stride = per_axis(call.ints("stride") or self.size, spatial)
        self.padding = per_axis(call.ints("padding"), spatial)
        self.dilation = [1] * spatial
        if "dilation" in call.arguments:
            self.dilation = per_axis(call.ints("dilation"), spatial)
        call.read("ceil_mode")
        self.image = _fixed(call, call.fake("self").shape[-spatial:])
        self.out = _fixed(call, call.output.shape[-spatial:])

    @property
    def behind(self) -> list[int]:
        """Padding behind the end, with which the last window is whole."""
        return [
            max((out - 1) * stride + (size - 1) * dilation + 1 - image - before, before)
            for out, stride, size, dilation, image, before in zip(
                self.out, self.stride, self.size, self.dilation, self.image, self.padding
            )
        ]

    @property
    def is_plain(self) -> bool:
        """Whether no window reaches further than the padding that was asked for."""
        return self.behind == self.padding

    def positions(self) -> np.ndarray:
        """Flat position of each element of each window; -1 outside. Shape (elements, windows)."""
        lines = [
            np.arange(out) * stride - before + np.arange(size)[:, None] * dilation
            for out, stride, before, size, dilation in zip(
                self.out, self.stride, self.padding, self.size, self.dilation
            )
        ]
        return _flat_positions(lines, self.image)


def _fixed(call: NodeCall, sizes: Sequence) -> list[int]:
    if not all(isinstance(size, int) for size in sizes):
        call.refuse("pools images of unknown size", "Export the model with fixed image sizes")
    return list(sizes)


def _flat_positions(lines: list[np.ndarray], image: list[int]) -> np.ndarray:
    """Of positions along each axis, (elements, windows) each, those in an image as one row."""
    elements = list(product(*(range(len(line)) for line in lines)))
    rows = []
    for element in elements:
        grid = np.meshgrid(*(line[e] for line, e in zip(lines, element)), indexing="ij")
        inside = np.all([(g >= 0) & (g < size) for g, size in zip(grid, image)], axis=0)
        clipped = [np.clip(g, 0, size - 1) for g, size in zip(grid, image)]
        rows.append(np.where(inside, np.ravel_multi_index(clipped, image), -1).reshape(-1))
    return np.asarray(rows, np.int64)


def average(spatial: int) -> Callable[[NodeCall], relax.Expr]:
    """Average pooling."""

    def convert(call: NodeCall) -> relax.Expr:
        window, x = _Window(call, spatial), _batched(call, spatial)
        counts_padding = bool(call["count_include_pad"])
        divisor = call.optional("divisor_override")
        options: dict[str, Any] = dict(strides=window.stride, layout=_LAYOUTS[spatial])
        if divisor is None and window.is_plain:
            options |= dict(padding=window.padding, count_include_pad=counts_padding)
            return _result(call, call.emit(_AVERAGE[spatial](x, window.size, **options)))
        options |= dict(padding=[*window.padding, *window.behind], count_include_pad=True)
        mean = call.emit(_AVERAGE[spatial](x, window.size, **options))
        factors = _factors(call, window)
        return _result(call, call.emit(_op.multiply(mean, constant(factors))))

    return convert


def _factors(call: NodeCall, window: _Window) -> np.ndarray:
    """Elements of a whole window over what torch divides by, which it is asked, for each window."""
    ones = torch.ones(1, 1, *window.image)
    averages = call.operator(ones, *call.node.args[1:], **call.node.kwargs)
    inside = (window.positions() >= 0).sum(0).reshape(averages.shape)
    return (prod(window.size) * averages.numpy() / inside).astype(np.float32)


def largest(spatial: int) -> Callable[[NodeCall], tuple]:
    """Max-pooling, and where the largest elements were."""

    def convert(call: NodeCall) -> tuple:
        window, x = _Window(call, spatial), _batched(call, spatial)
        padding = window.padding
        if not window.is_plain:
            padding = [*window.padding, *window.behind]
        options: dict[str, Any] = dict(
            strides=window.stride, padding=padding, dilation=window.dilation
        )
        y = call.emit(_LARGEST[spatial](x, window.size, layout=_LAYOUTS[spatial], **options))
        indices = None
        if call.is_used(1):
            indices = _result(call, _where_largest(call, x, window.positions(), window.out)[1])
        return _result(call, y), indices

    return convert


def _where_largest(call: NodeCall, x: relax.Expr, positions: np.ndarray, out: list[int]) -> tuple:
    """Largest element of each window, the first of equal ones, and its position in the image."""
    batch, channels, *image = list(x.ty.shape)
    count = positions.shape[1]
    planes = call.emit(_op.reshape(x, (batch, channels, prod(int(size) for size in image))))
    values = call.emit(take(planes, constant(np.maximum(positions, 0)), 2))
    if (positions < 0).any():
        dtype = str(x.ty.dtype)
        lowest = -np.inf if is_float(dtype) else np.iinfo(dtype).min
        values = call.emit(_op.where(constant(positions >= 0), values, number(lowest, x)))
    element = call.emit(_op.argmax(values, 2))
    flat = call.emit(
        _op.add(_op.multiply(element, number(count, element)), constant(np.arange(count)))
    )
    table = constant(np.maximum(positions, 0).reshape(-1))
    indices = call.emit(_op.take(table, flat, 0, mode="clip"))
    shape = (batch, channels, *out)
    return (
        call.emit(_op.reshape(call.emit(_op.max(values, 2)), shape)),
        call.emit(_op.reshape(indices, shape)),
    )


def adaptive_average(spatial: int) -> Callable[[NodeCall], relax.Expr]:
    """Averages of as many windows as the result has elements."""

    def convert(call: NodeCall) -> relax.Expr:
        call.read("output_size")
        x, out = _batched(call, spatial), _fixed(call, call.output.shape[-spatial:])
        image = _fixed(call, call.fake("self").shape[-spatial:])
        if all(size % parts == 0 for size, parts in zip(image, out)):
            y = _ADAPTIVE[spatial](x, out, layout=_LAYOUTS[spatial])
            return _result(call, call.emit(y))
        for axis, (size, parts) in enumerate(zip(image, out)):
            if size != parts:
                x = _uneven_means(call, x, axis + 2, size, parts)
        return _result(call, x)

    return convert


def _uneven_means(call: NodeCall, x: relax.Expr, axis: int, size: int, parts: int) -> relax.Expr:
    """Means of overlapping windows of unlike sizes, along one axis."""
    windows = _adaptive_windows(size, parts)
    taken = [
        call.emit(_op.mean(_op.strided_slice(x, [axis], [w[0]], [w[-1] + 1]), axis, keepdims=True))
        for w in windows
    ]
    return call.emit(_op.concat(taken, axis))


def _adaptive_windows(size: int, parts: int) -> list[range]:
    return [range(i * size // parts, -(-(i + 1) * size // parts)) for i in range(parts)]


def adaptive_largest(spatial: int) -> Callable[[NodeCall], tuple]:
    """Largest elements of as many windows as the result has elements, and where they were."""

    def convert(call: NodeCall) -> tuple:
        call.read("output_size")
        x, out = _batched(call, spatial), _fixed(call, call.output.shape[-spatial:])
        image = _fixed(call, call.fake("self").shape[-spatial:])
        lines = []
        for size, parts in zip(image, out):
            windows = _adaptive_windows(size, parts)
            line = np.full((max(map(len, windows)), parts), -1)
            for i, window in enumerate(windows):
                line[: len(window), i] = window
            lines.append(line)
        values, indices = _where_largest(call, x, _flat_positions(lines, image), out)
        return _result(call, values), _result(call, indices)

    return convert


OPERATORS: dict[str, Callable] = {
    "_adaptive_avg_pool2d.default": adaptive_average(2),
    "_adaptive_avg_pool3d.default": adaptive_average(3),
    "adaptive_avg_pool1d.default": adaptive_average(1),
    "adaptive_max_pool2d.default": adaptive_largest(2),
    "adaptive_max_pool3d.default": adaptive_largest(3),
    "avg_pool1d.default": average(1),
    "avg_pool2d.default": average(2),
    "avg_pool3d.default": average(3),
    "max_pool2d_with_indices.default": largest(2),
    "max_pool3d_with_indices.default": largest(3),
}
