"""Channels joined and cut out: of packed planes, and of codes in bytes."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import relax, topi

from ..encoding import WORD_BITS
from ..te.channels import concat_channels, slice_channels
from .packed import register_packed
from .registration import describe, make_call, tensor_shape


def packed_concat(parts: Sequence[relax.Expr], channels: Sequence[int]) -> relax.Call:
    """Planes of images joined along channels, wherever in a word each begins.

    Parameters
    ----------
    parts : sequence of relax.Expr of uint64, shape (N, H, W, bits, words)
    channels : sequence of int
        Of each part.
    """
    return make_call(packed_concat_op, list(parts), channels=list(channels))


def bytes_concat(parts: Sequence[relax.Expr]) -> relax.Call:
    """Codes (uint8 NHWC) of images joined along channels."""
    return make_call(bytes_concat_op, list(parts))


def packed_slice(planes: relax.Expr, begin: int, end: int) -> relax.Call:
    """Planes of channels begin ... end - 1."""
    return make_call(packed_slice_op, [planes], begin=begin, end=end)


def _infer_concat(call: relax.Call) -> relax.TensorType:
    *outer, _ = tensor_shape(call.args[0], "uint64", describe(call))
    channels = sum(int(count) for count in call.attrs["channels"])
    return relax.TensorType([*outer, -(-channels // WORD_BITS)], "uint64")


def _infer_slice(call: relax.Call) -> relax.TensorType:
    *outer, _ = tensor_shape(call.args[0], "uint64", describe(call))
    channels = int(call.attrs["end"]) - int(call.attrs["begin"])
    return relax.TensorType([*outer, -(-channels // WORD_BITS)], "uint64")


def _compute_concat(call: relax.Call):
    channels = [int(count) for count in call.attrs["channels"]]
    return lambda *parts: concat_channels(parts, channels), call.args


def _infer_bytes_concat(call: relax.Call) -> relax.TensorType:
    shapes = [tensor_shape(part, "uint8", describe(call)) for part in call.args]
    channels = sum(int(shape[-1]) for shape in shapes)
    return relax.TensorType([*shapes[0][:-1], channels], "uint8")


def _compute_bytes_concat(call: relax.Call):
    return lambda *parts: topi.concatenate(parts, axis=-1), call.args


def _compute_slice(call: relax.Call):
    begin, end = int(call.attrs["begin"]), int(call.attrs["end"])
    return lambda planes: slice_channels(planes, begin, end), call.args


packed_concat_op = register_packed(
    "bitenc.packed_concat", ("parts",), _infer_concat, _compute_concat
)
packed_slice_op = register_packed("bitenc.packed_slice", ("planes",), _infer_slice, _compute_slice)
bytes_concat_op = register_packed(
    "bitenc.bytes_concat", ("parts",), _infer_bytes_concat, _compute_bytes_concat
)
