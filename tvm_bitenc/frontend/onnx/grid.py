"""`Grid`: what a quantizer of ONNX or QONNX rounds to, in the terms of these formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...encoding import Encoding
from ...errors import UnsupportedError
from ...rounding import ROUND

MAX_BITS = 8  # Of what has an `Encoding`.


@dataclass(frozen=True, eq=False)
class Grid:
    """Levels ``(q - zero_point) * scale`` for integers q from `low` to `high`.

    Parameters
    ----------
    scale, zero_point : ndarray of float32
        Of a shape that broadcasts to that of the tensor.
    bits, low, high : int
    rounding : str
        A key of `ROUND`, or ``sign`` for the levels -scale and +scale.
    is_zero_point_late : bool
        The zero point is added after rounding, as in QuantizeLinear, not before, as in Quant.
    where : str
        Names the node in messages.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    bits: int
    low: int
    high: int
    rounding: str = "half_even"
    is_zero_point_late: bool = False
    where: str = "quantizer"

    def __post_init__(self):
        scale = np.asarray(self.scale)
        if scale.dtype != np.float32 or not (np.isfinite(scale).all() and (scale > 0).all()):
            raise UnsupportedError(
                self.where, "a scale is zero, negative, not finite or no float32", "Use s > 0"
            )
        zero_point = np.asarray(self.zero_point, np.float32)
        if not ((zero_point >= self.low) & (zero_point <= self.high)).all():
            raise UnsupportedError(
                self.where,
                f"a zero point is outside the code range {self.low} ... {self.high}",
                "Use a code as zero point",
            )
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "zero_point", zero_point)

    def check_fits(self, shape: Sequence) -> None:
        """Raise `UnsupportedError` unless scale and zero point broadcast to a tensor's shape."""
        for parameter in (self.scale, self.zero_point):
            sizes = list(zip(parameter.shape[::-1], reversed(shape)))
            if parameter.ndim > len(shape) or any(n not in (1, size) for n, size in sizes):
                raise UnsupportedError(
                    self.where,
                    f"a scale or zero point of shape {parameter.shape} doesn't match its input "
                    f"{tuple(shape)}",
                    "Use one number, or one per channel",
                )

    def values(self, x: np.ndarray) -> np.ndarray:
        """Levels (float32) next to float32 values, by the arithmetic of the format."""
        if self.rounding == "sign":
            return np.where(x >= 0, self.scale, -self.scale).astype(np.float32)
        return (self.integers(x) - self.zero_point) * self.scale

    def integers(self, x: np.ndarray) -> np.ndarray:
        """q of float32 values, as float32."""
        early, late = (0, self.zero_point) if self.is_zero_point_late else (self.zero_point, 0)
        with np.errstate(all="ignore"):
            q = ROUND[self.rounding](x / self.scale + np.float32(early)) + np.float32(late)
        return np.clip(q, np.float32(self.low), np.float32(self.high))

    def narrowed(self, integers: np.ndarray) -> Grid:
        """Grid of as few bits as given integers need: 8-bit storage says little of its contents."""
        offsets = np.unique(integers - self.zero_point.astype(np.int64))
        is_binary = offsets.size == 2 and offsets[0] == -offsets[1] and self.zero_point.size == 1
        if is_binary and (offsets[1] == 1 or self.scale.size > 1 or self.scale != 1):
            scale = self.scale * np.float32(offsets[1])
            sign = replace(self, scale=scale, zero_point=np.zeros((), np.float32), rounding="sign")
            return replace(sign, bits=1, low=-1, high=1)
        low = int(min(integers.min(), self.zero_point.min()))
        high = int(max(integers.max(), self.zero_point.max()))
        if low == high:  # A grid has two levels or more.
            low, high = (low - 1, high) if high == self.high else (low, high + 1)
        return replace(self, low=low, high=high, bits=(high - low).bit_length())

    def encoding(self, ndim: int, is_constant: bool) -> tuple[Encoding, int]:
        """Encoding for a tensor of `ndim` axes, and the axis of the channels, -1 if it has none.

        Parameters
        ----------
        is_constant : bool
            The values lie on the grid already, so it doesn't matter how they are rounded.
        """
        scale, zero_point, axis = self._by_channel(ndim)
        try:
            if self.rounding == "sign":
                return Encoding.symmetric(1, 2 * scale), axis
            late, rounding = 0, "half_even"
            if not is_constant:
                late, rounding = self._late(zero_point), self.rounding
            offset = zero_point - np.float32(self.low)
            most = self.high - self.low
            return Encoding(self.bits, scale, offset, (), rounding, most, late), axis
        except UnsupportedError as error:
            raise type(error)(self.where, error.cause, error.cure) from None

    def _late(self, zero_point: np.ndarray) -> int:
        if not self.is_zero_point_late:
            return -self.low
        if zero_point.ndim:
            raise UnsupportedError(
                self.where,
                "its activations have a zero point per channel (refused by design)",
                "Quantize activations per tensor",
            )
        return int(zero_point) - self.low

    def _by_channel(self, ndim: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Scale and zero point as scalars, or along the one axis on which they vary."""
        parameters = [
            p.reshape((1,) * (ndim - p.ndim) + p.shape) for p in (self.scale, self.zero_point)
        ]
        axes = {axis for p in parameters for axis in range(ndim) if _varies(p, axis)}
        if len(axes) > 1:
            raise UnsupportedError(
                self.where,
                f"its scale or zero point varies along the axes {sorted(axes)}",
                "Quantize per tensor or per channel",
            )
        axis = axes.pop() if axes else -1
        scale, zero_point = (_along(p, axis) for p in parameters)
        return scale, zero_point, axis


def _varies(parameter: np.ndarray, axis: int) -> bool:
    return parameter.shape[axis] > 1 and bool((parameter != parameter.take([0], axis)).any())


def _along(parameter: np.ndarray, axis: int) -> np.ndarray:
    """The scalar of a parameter that varies nowhere, else its values along `axis`."""
    if axis < 0 or not _varies(parameter, axis):
        return parameter.reshape(-1)[0]
    index = tuple(slice(None) if i == axis else 0 for i in range(parameter.ndim))
    return np.ascontiguousarray(parameter[index])
