"""Images resized. Torch itself says which pixels make a new one, and with which weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from tvm import relax

from ..node_call import NodeCall, constant
from .indexing import take

_op = relax.op
# Below this, a weight is what rounding left of zero.
NO_WEIGHT = 1e-7
# Of images along the axes that aren't looked at. Torch's antialiasing mistakes its strides for 1.
WIDTH = 2


def resized(spatial: int) -> Callable[[NodeCall], relax.Expr]:
    """Any operator that resizes axis by axis."""

    def convert(call: NodeCall) -> relax.Expr:
        call.read()
        x, fake = call[_first(call)], call.fake(_first(call))
        image, out = fake.shape[-spatial:], call.output.shape[-spatial:]
        if not all(isinstance(size, int) for size in (*image, *out)):
            call.refuse("resizes images of unknown size", "Export it with fixed image sizes")
        for axis in reversed(range(spatial)):
            matrix = _matrix(call, spatial, axis, image[axis], out[axis])
            if matrix.shape[0] != matrix.shape[1] or not np.array_equal(
                matrix, np.eye(len(matrix))
            ):
                x = _mixed(call, x, fake.ndim - spatial + axis, matrix)
        return x

    return convert


def grid_sample(call: NodeCall) -> relax.Expr:
    """An image at positions of a grid, which is (N, H, W, 2) in torch and (N, 2, H, W) in Relax."""
    grid = call.emit(_op.permute_dims(call["grid"], [0, 3, 1, 2]))
    options = dict(
        method=("bilinear", "nearest", "bicubic")[call["interpolation_mode"]],
        padding_mode=("zeros", "border", "reflection")[call["padding_mode"]],
        align_corners=bool(call["align_corners"]),
        layout="NCHW",
    )
    return call.emit(_op.image.grid_sample(call["input"], grid, **options))


def _first(call: NodeCall) -> str:
    return call.arguments[0]


def _matrix(call: NodeCall, spatial: int, axis: int, size: int, out: int) -> np.ndarray:
    """Weights of one axis, (out, size): what torch makes of images with a line of ones."""
    image = torch.eye(size).reshape(1, size, *(size if i == axis else 1 for i in range(spatial)))
    sizes = [size if i == axis else WIDTH for i in range(spatial)]
    images = image.expand(1, size, *sizes).contiguous()
    values = call.operator(images, *_along(call, spatial, axis, out))
    along_axis = tuple(slice(None) if i == axis else 0 for i in range(spatial))
    line = values[0][(slice(None),) + along_axis]  # noqa: RUF005
    return line.T.double().numpy()


def _along(call: NodeCall, spatial: int, axis: int, out: int) -> list:
    """The node's arguments, for images of `WIDTH` but along one axis."""
    result: list = []
    for name in call.arguments[1:]:
        value = call.graph_value(name)
        if name == "output_size" and value is not None:
            value = [out if i == axis else WIDTH for i in range(spatial)]
        elif name == "scale_factors":
            value = (
                None if value is None else [v if i == axis else 1.0 for i, v in enumerate(value)]
            )
        result.append(value)
    return result


def _mixed(call: NodeCall, x: relax.Expr, axis: int, matrix: np.ndarray) -> relax.Expr:
    """Sums of a few weighted elements of an axis each."""
    heavy = [np.flatnonzero(np.abs(row) > NO_WEIGHT) for row in matrix]
    count = max(map(len, heavy))
    indices = np.asarray([np.resize(row, count) for row in heavy], np.int64)
    weights = np.take_along_axis(matrix, indices, 1)
    weights[np.arange(count) >= np.asarray([[len(row)] for row in heavy])] = 0
    if count == 1 and (weights == 1).all():
        return call.emit(take(x, constant(indices[:, 0]), axis))
    shape = [1] * len(x.ty.shape)
    shape[axis] = -1
    total = None
    for i in range(count):
        weight = constant(weights[:, i].astype(str(x.ty.dtype)).reshape(shape))
        term = call.emit(_op.multiply(take(x, constant(indices[:, i]), axis), weight))
        total = term if total is None else call.emit(_op.add(total, term))
    return total


_AXES = {
    "_upsample_bicubic2d_aa": 2,
    "_upsample_bilinear2d_aa": 2,
    "_upsample_nearest_exact1d": 1,
    "_upsample_nearest_exact2d": 2,
    "_upsample_nearest_exact3d": 3,
    "upsample_bicubic2d": 2,
    "upsample_bilinear2d": 2,
    "upsample_linear1d": 1,
    "upsample_nearest1d": 1,
    "upsample_nearest2d": 2,
    "upsample_nearest3d": 3,
    "upsample_trilinear3d": 3,
}

OPERATORS: dict[str, Callable] = {
    "grid_sampler_2d.default": grid_sample,
    **{
        f"{name}.{variant}": resized(spatial)
        for name, spatial in _AXES.items()
        for variant in ("default", "vec")
    },
}
