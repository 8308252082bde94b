"""Resize and Upsample: each axis is read at the positions that ONNX gives for its scale."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto
from tvm import relax
from tvm.relax import op

from ...errors import UnsupportedError
from .constants import literal
from .elementwise import scalar
from .importer import Converter, Importer
from .interpolation import Axis, Sampling, positions, taps
from .model import describe_node
from .shaping import axis_of, check_size, fixed_shape


def _resize(importer: Importer, node: NodeProto) -> None:
    if importer.opset < 11:
        return _upsample(importer, node)
    attributes = importer.attributes(node)
    sampling = Sampling(
        attributes.text("mode"),
        attributes.text("coordinate_transformation_mode"),
        attributes.text("nearest_mode"),
        attributes["cubic_coeff_a"],
        bool(attributes["antialias"]) if importer.opset >= 18 else False,
        bool(attributes["exclude_outside"]),
    )
    return _apply(importer, node, _axes(importer, node, sampling), sampling)


def _sizes(importer: Importer, node: NodeProto) -> list[int]:
    """Sizes of the input; a dynamic batch, which `_apply` lets nobody resize, counts as 1."""
    sizes = importer.shape(node.input[0])
    if _has_dynamic_batch(sizes) and all(isinstance(size, int) for size in sizes[1:]):
        return [1, *sizes[1:]]
    return fixed_shape(importer, node)


def _has_dynamic_batch(sizes: list) -> bool:
    return bool(sizes) and not isinstance(sizes[0], int)


def _upsample(importer: Importer, node: NodeProto) -> None:
    """Positions from the first pixel on; the nearest one is the one before."""
    attributes, sizes = importer.attributes(node), _sizes(importer, node)
    if importer.opset < 9:
        scales = np.array(attributes["scales"])
    else:
        scales = importer.parameter(node, 1, "scales").astype(np.float64)
    sampling = Sampling(attributes.text("mode"), "asymmetric", "floor")
    _check(node, sampling, len(scales) == len(sizes) and bool((scales > 0).all()))
    axes = [Axis(size, int(size * scale), scale) for size, scale in zip(sizes, scales.tolist())]
    _apply(importer, node, axes, sampling)


def _check(node: NodeProto, sampling: Sampling, fits: bool) -> None:
    if not fits or not sampling.is_known:
        raise UnsupportedError(
            describe_node(node),
            f"resizes by {sampling}, with scales or sizes that {'' if fits else 'do not '}fit",
            "Use nearest, linear or cubic, and half_pixel or another mode of later operator sets",
        )


def _axes(importer: Importer, node: NodeProto, sampling: Sampling) -> list[Axis]:
    sizes, attributes = _sizes(importer, node), importer.attributes(node)
    rank = len(sizes)
    chosen = [axis_of(node, axis, rank) for axis in attributes.get("axes") or range(rank)]
    scales, results = _scales(importer, node, [sizes[axis] for axis in chosen])
    regions = [(0.0, 1.0)] * len(chosen)
    if sampling.positions == "tf_crop_and_resize":
        region = importer.parameter(node, 1, "region").tolist()
        regions = list(zip(region[: len(chosen)], region[len(chosen) :]))
    elif len(node.input) > 1 and node.input[1]:
        importer.read_inputs.add(node.input[1])  # Other modes don't look at the region.
    attributes.get("extrapolation_value")
    fits = len(scales) == len(results) == len(chosen) == len(regions)
    _check(node, sampling, fits and all(scale > 0 for scale in scales))
    axes = [Axis(size, size, 1.0) for size in sizes]
    for axis, scale, result, region in zip(chosen, scales, results, regions):
        axes[axis] = Axis(sizes[axis], result, scale, region)
    return axes


def _scales(importer: Importer, node: NodeProto, sizes: list[int]) -> tuple[list, list]:
    """Scale and new size of each axis that is resized."""
    attributes = importer.attributes(node)
    policy = attributes.text("keep_aspect_ratio_policy") if importer.opset >= 18 else "stretch"
    if len(node.input) > 3 and node.input[3]:
        stated = importer.parameter(node, 3, "sizes").tolist()
        if len(node.input) > 2 and node.input[2]:
            importer.read_inputs.add(node.input[2])  # Empty: files of operator set 11 have both.
        scales = [b / a for a, b in zip(sizes, stated)]
        if policy == "stretch" or len(stated) != len(sizes):
            return scales, stated
        scale = min(scales) if policy == "not_larger" else max(scales)
        return [scale] * len(sizes), [int(scale * size + 0.5) for size in sizes]
    factors = importer.parameter(node, 2, "scales")
    results = np.array(sizes, np.float32) * factors
    return factors.astype(np.float64).tolist(), [int(size) for size in results]


def _apply(importer: Importer, node: NodeProto, axes: list[Axis], sampling: Sampling) -> None:
    check_size(node, [axis.result for axis in axes])
    dtype, emit = importer.dtype(node.input[0]), importer.builder.emit
    if (dtype != "float32" and sampling.mode != "nearest") or not all(a.result for a in axes):
        raise UnsupportedError(describe_node(node), f"interpolates {dtype}", "Use float32")
    x = importer.expression(node.input[0])
    changed = [i for i, axis in enumerate(axes) if axis.result != axis.size or axis.scale != 1]
    crops = sampling.positions == "tf_crop_and_resize"
    if _has_dynamic_batch(importer.shape(node.input[0])) and (crops or 0 in changed):
        raise UnsupportedError(
            describe_node(node), "resizes a dynamic batch", "Import with a fixed shape"
        )
    image = _as_image(x, axes, changed, sampling)
    if image is not None:
        return importer.define(node, image)
    if sampling.positions == "tf_crop_and_resize":
        changed = list(range(len(axes)))
    outside = np.zeros([1] * len(axes), bool)
    for i in changed:
        x = emit(_read(x, i, *taps(axes[i], sampling)), node.name)
        if sampling.positions == "tf_crop_and_resize":
            at = positions(axes[i], sampling)
            shape = [-1 if j == i else 1 for j in range(len(axes))]
            outside = outside | ((at < 0) | (at > axes[i].size - 1)).reshape(shape)
    if outside.any():
        value = scalar(importer.attributes(node)["extrapolation_value"], dtype)
        x = op.where(literal(outside), value, x)
    return importer.define(node, x)


def _read(x: relax.Expr, axis: int, indices: np.ndarray, weights: np.ndarray) -> relax.Expr:
    """Sum of what an axis holds at some positions, times their weights."""
    if np.all(weights == 1):
        return op.take(x, literal(indices[:, 0]), axis, mode="clip")
    shape = [-1 if i == axis else 1 for i in range(len(x.ty.shape))]
    terms = [
        op.multiply(op.take(x, literal(index), axis, mode="clip"), literal(weight.reshape(shape)))
        for index, weight in zip(indices.T.copy(), weights.T)
    ]
    total = terms[0]
    for term in terms[1:]:
        total = op.add(total, term)
    return total


def _as_image(
    x: relax.Expr, axes: list[Axis], changed: list[int], sampling: Sampling
) -> relax.Expr | None:
    """Return the op for images, which later passes know, where it gives the same numbers."""
    if len(axes) != 4 or changed not in ([2, 3], [2], [3]):
        return None
    size = (axes[2].result, axes[3].result)
    if sampling.mode == "nearest":
        same = all(
            axes[i].result % axes[i].size == 0
            and np.array_equal(
                taps(axes[i], sampling)[0][:, 0],
                np.arange(axes[i].result) // (axes[i].result // axes[i].size),
            )
            for i in (2, 3)
        )
        how = ("nearest_neighbor", "asymmetric", "floor")
    else:
        exact = all(axes[i].result == axes[i].length for i in (2, 3))
        same = exact and sampling.mode == "linear" and not sampling.antialias
        same = same and not sampling.exclude_outside and min(size) > 1
        modes = {"pytorch_half_pixel": "half_pixel"}
        mode = modes.get(sampling.positions, sampling.positions)
        same = same and mode in ("half_pixel", "align_corners", "asymmetric")
        how = ("linear", mode, "")
    if not same:
        return None
    return op.image.resize2d(x, size, (0.0,) * 4, "NCHW", *how, -0.5, 0, 0.0)


CONVERTERS: dict[str, Converter] = {"Resize": _resize, "Upsample": _upsample}
