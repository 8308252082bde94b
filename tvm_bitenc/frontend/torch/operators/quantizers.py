"""Torch's own quantizers, in torch's own arithmetic.

Fake-quantize, and a quantize with its dequantize of PT2E, compute in float32

    y = (clip(round(x * (1 / s)) + z, low, high) - z) * s

That isn't `bitenc.quantize`, which divides, so it is spelt out, and a `bitenc.quantize` behind it,
which changes no value there, says which levels y has. What is spelt out disappears into thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import Node
from tvm import relax

from ....encoding import Encoding, along
from ....errors import UnsupportedError
from ....op.quantize import quantize
from ..names import base_name, layer_name, reader_name
from ..node_call import NodeCall, Walk, constant


def bitenc_quantize(call: NodeCall) -> relax.Expr:
    """`bitenc::bitenc_quantize`, as the layers of `tvm_bitenc.nn` call it.

    Scale and zero point may be computed from parameters: torch's own values are taken.
    """
    # Scale and zero point are arguments; the encoding is here for its attributes.
    encoding = Encoding(int(call["bits"]), 1.0, 0.0, rounding=str(call["rounding"]))
    quantizer = quantize(call["x"], encoding, int(call["axis"]), layer_name(call.node))
    parameters = [(call.value(name), name) for name in ("scale", "zero_point")]
    arguments = [call[name] if value is None else constant(value) for value, name in parameters]
    return call.emit(relax.Call(quantizer.op, [call["x"], *arguments], quantizer.attrs))


def fake_quantize(call: NodeCall) -> tuple:
    """One of the cachemask ops that `torch.fake_quantize_*` decompose to."""
    call.read()
    node, importer = call.node, call.importer
    x, scale, zero_point, *rest = node.args
    axis = -1
    if "per_channel" in base_name(node):
        axis, rest = int(call.graph_value("axis")), rest[1:]
    if base_name(node).endswith("tensor_qparams"):
        if not importer.value(rest[0]).item():
            return _with_mask(call, importer.env[x])
        rest = rest[1:]
    grid = _Grid(node, importer, scale, zero_point, rest, axis)
    emit = call.emit
    # Torch takes the reciprocal in float32.
    codes = _codes(importer.env[x], np.float32(1) / grid.scale, grid, emit)
    return _with_mask(call, _levels(codes, grid, emit))


def _with_mask(call: NodeCall, result: relax.Expr) -> tuple:
    """What the op gives: the result, and a mask that only its gradient reads."""
    if call.is_used(1):
        call.refuse("has its mask read", "Use its values alone: the mask is for gradients")
    return result, None


def quantize_integers(call: NodeCall) -> relax.Expr:
    """``quantized_decomposed::quantize_*``: float32 to int8 or uint8."""
    call.read()
    node, importer = call.node, call.importer
    x, scale, zero_point, *rest = node.args
    grid = _Grid(node, importer, scale, zero_point, *_axis_and_range(node, rest))
    emit = call.emit
    codes = _codes(importer.env[x], grid.reciprocal, grid, emit)
    return emit(relax.op.astype(codes, str(rest[-1]).removeprefix("torch.")))


def dequantize_integers(call: NodeCall) -> relax.Expr:
    """``quantized_decomposed::dequantize_*``: int8 or uint8 to float32."""
    call.read()
    node, importer = call.node, call.importer
    integers, scale, zero_point, *rest = node.args
    grid = _Grid(node, importer, scale, zero_point, *_axis_and_range(node, rest))
    emit = call.emit
    codes = emit(relax.op.astype(importer.env[integers], "float32"))
    _check_range(importer.value(integers), grid)
    return _levels(codes, grid, emit)


def _axis_and_range(node: Node, rest: list) -> tuple[list, int]:
    """(low and high, axis) of the arguments behind the zero point."""
    if "per_channel" in base_name(node):
        return rest[1:3], int(rest[0])
    return rest[:2], -1


class _Grid:
    """Scale, zero point and range of one quantizer, as numbers.

    Parameters
    ----------
    scale, zero_point : Node, float, int or None
    bounds : sequence of Node or int
        Smallest and largest integer.
    axis : int
        Of the channels; -1 for one scale.
    """

    def __init__(
        self,
        node: Node,
        importer: Walk,
        scale: object,
        zero_point: object,
        bounds: Sequence[object],
        axis: int,
    ):
        self.layer = reader_name(node)
        self.where = f"{base_name(node)} of layer {self.layer!r}"
        values = [self._number(importer.value(v)) for v in (scale, zero_point, *bounds)]
        double, zero_point, low, high = values
        with np.errstate(divide="ignore"):
            self.reciprocal = _along_axis(np.float32(1 / double), node, axis)
        self.scale = _along_axis(np.float32(double), node, axis)
        self.zero_point = _along_axis(np.float32(zero_point), node, axis)
        self.low, self.high, self.axis = int(low), int(high), axis if double.size > 1 else -1
        if not (np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise UnsupportedError(
                self.where, "a scale is zero, negative or not finite", "Calibrate the model again"
            )

    def _number(self, value: Any) -> np.ndarray:
        """Value as an array; a lone number as one without axes."""
        if value is None:
            raise UnsupportedError(
                self.where,
                "its scale or zero point is computed from its input",
                "Use static quantization: calibrate first, and keep the scales",
            )
        array = np.asarray(value.detach().numpy() if isinstance(value, torch.Tensor) else value)
        return array.reshape(()) if array.size == 1 else array

    @property
    def encoding(self) -> Encoding | None:
        """The grid as an `Encoding`; None where it takes more than 8 bits."""
        bits = int(self.high - self.low).bit_length()
        if not 1 <= bits <= 8:
            return None
        zero_point = self.zero_point - np.float32(self.low)
        scale, zero_point = (
            v.reshape(-1) if v.size > 1 else v.reshape(()) for v in (self.scale, zero_point)
        )
        return Encoding(bits, scale, zero_point, max_code=self.high - self.low)


def _along_axis(values: np.ndarray, node: Node, axis: int) -> np.ndarray:
    return along(np.asarray(values), node.all_input_nodes[0].meta["val"].ndim, axis)


def _codes(x: relax.Expr, reciprocal: np.ndarray, grid: _Grid, emit: Callable) -> relax.Expr:
    """Integers of real values, as float32."""
    scaled = emit(relax.op.multiply(x, relax.const(reciprocal)))
    codes = emit(relax.op.round(scaled))
    if np.any(grid.zero_point):
        codes = emit(relax.op.add(codes, relax.const(grid.zero_point)))
    return emit(relax.op.clip(codes, grid.low, grid.high))


def _levels(codes: relax.Expr, grid: _Grid, emit: Callable) -> relax.Expr:
    """Real values of integers, marked as levels where 8 bits hold them."""
    if np.any(grid.zero_point):
        codes = emit(relax.op.subtract(codes, relax.const(grid.zero_point)))
    levels = emit(relax.op.multiply(codes, relax.const(grid.scale)))
    encoding = grid.encoding
    if encoding is None:
        return levels
    return emit(quantize(levels, encoding, grid.axis, grid.layer))


def _check_range(integers: Any, grid: _Grid) -> None:
    """Refuse stored integers that lie outside of the range that they are said to have."""
    if isinstance(integers, torch.Tensor) and integers.numel():
        low, high = int(integers.min()), int(integers.max())
        if low < grid.low or high > grid.high:
            raise UnsupportedError(
                grid.where,
                f"holds integers {low} to {high}, outside of its range {grid.low} to {grid.high}",
                "Quantize the model again",
            )


OPERATORS: dict[str, Callable] = {
    "bitenc_quantize.default": bitenc_quantize,
    "fake_quantize_per_tensor_affine_cachemask.default": fake_quantize,
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default": fake_quantize,
    "fake_quantize_per_channel_affine_cachemask.default": fake_quantize,
    "quantize_per_tensor.default": quantize_integers,
    "quantize_per_tensor.tensor": quantize_integers,
    "quantize_per_tensor.tensor2": quantize_integers,
    "quantize_per_channel.default": quantize_integers,
    "dequantize_per_tensor.default": dequantize_integers,
    "dequantize_per_tensor.tensor": dequantize_integers,
    "dequantize_per_tensor.tensor2": dequantize_integers,
    "dequantize_per_channel.default": dequantize_integers,
}
