"""`bitenc.branch_conv2d` and `bitenc.branch_dense`: sums of {-1,+1} branches on codes."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from numpy.typing import ArrayLike
from tvm import relax, te

from ..branches import BranchGeometry
from ..encoding import Encoding
from ..errors import UnsupportedError
from ..layer import four_sides, height_width
from ..te.conv2d import branch_conv2d as te_branch_conv2d
from .registration import describe, make_call, register_op, tensor_shape


def branch_conv2d(
    codes: relax.Expr,
    act: Encoding,
    weight_codes: np.ndarray,
    weight: Encoding,
    *,
    strides: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    layer: str = "",
    branches: ArrayLike | None = None,
) -> relax.Call:
    r"""Convolve codes: int32 accumulators :math:`\sum (v_a + o_a)(v_w + o_w)`.

    The product of the two plane sums is the sum over all pairs of planes (branches) of
    :math:`\kappa_m \kappa_k c_m c_k` plus the terms of the offsets. A branch matrix gives pairs
    other coefficients, and leaves the terms of the offsets as they are; see `BranchGeometry`.

    Parameters
    ----------
    codes : relax.Expr of uint8, shape (N, C, H, W)
    act, weight : Encoding
    weight_codes : ndarray of uint8, shape (O, C / groups, KH, KW)
    strides, dilation : (height, width)
    padding : (top, left, bottom, right)
    groups : int
    layer : str
        Name for reports and messages.
    branches : array_like of int, shape (weight bits, activation bits), optional

    Returns
    -------
    relax.Call of int32, shape (N, O, OH, OW)

    Raises
    ------
    UnsupportedError
        For a branch matrix of another shape, of other numbers than integers, or of zeros alone.
    """
    matrix = None if branches is None else _matrix(branches, act, weight, layer)
    offset = np.broadcast_to(weight.offset, weight_codes.shape[:1])
    return make_call(
        branch_conv2d_op,
        [codes, relax.const(weight_codes, "uint8"), relax.const(offset, "int32")],
        act_coefficients=list(act.integer_coefficients),
        weight_coefficients=list(weight.integer_coefficients),
        act_offset=int(act.offset),
        strides=list(strides),
        padding=list(padding),
        dilation=list(dilation),
        groups=groups,
        layer=layer,
        **({} if matrix is None else {"branches": matrix}),
    )


def _matrix(
    branches: ArrayLike, act: Encoding, weight: Encoding, layer: str
) -> list[list[int]] | None:
    """Branch matrix as an attribute, None where it is the product of the coefficients."""
    where, matrix = f"conv2d of layer {layer!r}", np.asarray(branches)
    shape = weight.bits, act.bits
    if matrix.shape != shape:
        cause = f"its branch matrix is of shape {matrix.shape}, not {shape}"
        raise UnsupportedError(where, cause, "Give a row for each weight plane")
    integers = matrix.astype(np.int64)
    if not np.array_equal(integers, matrix):
        cause = "its branch matrix has other numbers than integers"
        raise UnsupportedError(where, cause, "Move a common factor into the scale")
    if not integers.any():
        raise UnsupportedError(where, "its branch matrix is zero", "Give some branch a coefficient")
    sides = weight.integer_coefficients, act.integer_coefficients
    return None if np.array_equal(integers, np.multiply.outer(*sides)) else integers.tolist()


def branch_dense(
    codes: relax.Expr, act: Encoding, weight_codes: np.ndarray, weight: Encoding, *, layer: str = ""
) -> relax.Call:
    """Dense layer on codes: int32 (N, O) from uint8 codes (N, I) and weight codes (O, I)."""
    offset = np.broadcast_to(weight.offset, weight_codes.shape[:1])
    return make_call(
        branch_dense_op,
        [codes, relax.const(weight_codes, "uint8"), relax.const(offset, "int32")],
        act_coefficients=list(act.integer_coefficients),
        weight_coefficients=list(weight.integer_coefficients),
        act_offset=int(act.offset),
        layer=layer,
    )


def geometry_of(call: relax.Call) -> BranchGeometry:
    """Planes and window of a call to a branch op or to `bitenc.packed_conv2d`."""
    attrs = call.attrs

    act, weight = (attrs.get(f"{which}_coefficients", ()) for which in ("act", "weight"))
    return BranchGeometry(
        tuple(map(int, act)),
        tuple(map(int, weight)),
        int(attrs["act_offset"]),
        height_width(attrs.get("strides", (1, 1))),
        four_sides(attrs.get("padding", (0, 0, 0, 0))),
        height_width(attrs.get("dilation", (1, 1))),
        int(attrs.get("groups", 1)),
        tuple(tuple(map(int, row)) for row in attrs.get("branches", ())) or None,
    )


def geometry_attributes(geometry: BranchGeometry) -> dict:
    """Attributes that `geometry_of` reads."""
    found = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(geometry).items()}
    return {name: value for name, value in found.items() if value is not None}


def _infer_conv2d(call: relax.Call) -> relax.TensorType:
    batch, _, height, width = tensor_shape(call.args[0], "uint8", describe(call))
    out_channels, _, kernel_h, kernel_w = tensor_shape(call.args[1], "uint8", describe(call))
    geometry = geometry_of(call)
    out_height = geometry.out_size(height, kernel_h, 0)
    out_width = geometry.out_size(width, kernel_w, 1)
    return relax.TensorType([batch, out_channels, out_height, out_width], "int32")


def _infer_dense(call: relax.Call) -> relax.TensorType:
    batch, _ = tensor_shape(call.args[0], "uint8", describe(call))
    out_features, _ = tensor_shape(call.args[1], "uint8", describe(call))
    return relax.TensorType([batch, out_features], "int32")


def _legalize_conv2d(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    geometry = geometry_of(call)
    return builder.call_te(
        lambda codes, weight, offset: te_branch_conv2d(codes, weight, offset, geometry),
        *call.args,
        primfunc_name_hint="bitenc_branch_conv2d",
    )


def _legalize_dense(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    geometry = geometry_of(call)

    def compute(codes: te.Tensor, weight: te.Tensor, offset: te.Tensor) -> te.Tensor:
        def as_image(t: te.Tensor) -> te.Tensor:
            return te.compute((*t.shape, 1, 1), lambda n, c, y, x: t[n, c], name="image")

        acc = te_branch_conv2d(as_image(codes), as_image(weight), offset, geometry)
        return te.compute(acc.shape[:2], lambda n, o: acc[n, o, 0, 0], name="branch_dense")

    return builder.call_te(compute, *call.args, primfunc_name_hint="bitenc_branch_dense")


_ARGUMENTS = ("codes", "weight_codes", "weight_offset")
branch_conv2d_op = register_op("bitenc.branch_conv2d", _ARGUMENTS, _infer_conv2d, _legalize_conv2d)
branch_dense_op = register_op("bitenc.branch_dense", _ARGUMENTS, _infer_dense, _legalize_dense)
