r"""Float32 arithmetic behind accumulators: what a float unit computes, and which layers it can.

.. math:: y = \min(\max(fma(float(acc) \cdot scale, factor, term) + residual, low), high)

Every operation rounds as that of the CPU. Conversion, the addition of the residual and the limits
are whole ones of IEEE 754. Product and fused sum know neither infinities nor numbers below the
normal ones, so that constants have to keep what they give away from there, see `_is_normal`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import UnsupportedError
from ..layer import RESIDUAL, ConvLayer, FloatStep
from ..op.multiply_add import fused_multiply_add

CONSTANTS = 5  # Rows of parameters, in the order of the fields of `FloatArithmetic`.
NOTHING = np.float32(-0.0)  # What a sum may have in addition, whatever the sign of a zero.
_LOWEST, _FRACTION, _HIGHEST = -126, 23, 127  # Exponents of normal numbers, bits of fractions.
_ACC_BITS = 31


@dataclass(frozen=True, eq=False)
class FloatArithmetic:
    """Constants of each channel, float32 of shape (channels,).

    Parameters
    ----------
    scale, factor, term : ndarray
    low, high : ndarray
        Limits of the result, infinite where there are none.
    has_residual : bool
    """

    scale: np.ndarray
    factor: np.ndarray
    term: np.ndarray
    low: np.ndarray
    high: np.ndarray
    has_residual: bool = False

    @property
    def rows(self) -> np.ndarray:
        """Rows of parameters, int32 (CONSTANTS, channels): limits as integers of the same order."""
        numbers = np.stack([self.scale, self.factor, self.term]).astype(np.float32)
        return np.concatenate([numbers.view(np.int32), keys(np.stack([self.low, self.high]))])


def keys(numbers: np.ndarray) -> np.ndarray:
    """int32 in the order of float32 numbers, -0 just before 0, and NaN before all."""
    bits = np.ascontiguousarray(numbers, np.float32).view(np.int32)
    return np.where(np.isnan(numbers), -(2**31), bits ^ (bits >> 31 & 0x7FFFFFFF)).astype(np.int32)


def threshold_keys(thresholds: np.ndarray) -> np.ndarray:
    """Keys that `keys` reaches where a number is no less than a threshold; NaN is never reached."""
    found = keys(np.where(thresholds == 0, NOTHING, thresholds))
    return np.where(np.isnan(thresholds), 2**31 - 1, found).astype(np.int32)


def computed(rows: np.ndarray, acc: np.ndarray, residual: np.ndarray | None) -> np.ndarray:
    """Numbers of accumulators, as the float unit gives them: float32 shaped like these.

    Parameters
    ----------
    rows : ndarray of int32, shape (CONSTANTS, channels)
    acc : ndarray of int32, shape (..., channels)
    residual : ndarray of float32, shaped like `acc`, optional
    """
    scale, factor, term = rows[:3].view(np.float32)
    low, high = rows[3:]
    with np.errstate(all="ignore"):
        y = fused_multiply_add(acc.astype(np.float32) * scale, factor, term)
        y = y + (NOTHING if residual is None else residual)
    own = keys(y)
    compared = np.where(y == 0, 0, own)
    own = np.where(low > compared, low, np.where(high < compared, high, own))
    number = (own ^ (own >> 31 & 0x7FFFFFFF)).astype(np.int32).view(np.float32)
    return np.where(np.isnan(y), np.float32(np.nan), number)


def arithmetic_of(layer: ConvLayer) -> FloatArithmetic:
    """Read the steps of a layer.

    Raises
    ------
    UnsupportedError
        For steps that the unit doesn't have, or not in their order, and for constants with which
        it might leave the normal numbers.
    """
    name, steps = layer.name, layer.steps
    ones = np.ones(layer.out_channels, np.float32)
    found = FloatArithmetic(ones, ones, NOTHING * ones, -np.inf * ones, np.inf * ones)
    place = 0
    for step in steps[1:]:  # The first one makes floats of the accumulators.
        found, place = _joined(name, found, step, place)
    wrong = ~_is_normal(found)
    if wrong.any():
        channel = int(np.argmax(wrong))
        values = (float(x[channel]) for x in (found.scale, found.factor, found.term))
        raise UnsupportedError(
            name,
            f"its constants {', '.join(f'{x:g}' for x in values)} may leave the normal numbers",
            "Let none be as large or small, or run it on the CPU",
        )
    if np.any((found.low > found.high) | (found.high == 0) & np.signbit(found.high)):
        raise UnsupportedError(name, "its limits cross, or end at -0", "Run it on the CPU")
    return found


def _joined(
    name: str, found: FloatArithmetic, step: FloatStep, place: int
) -> tuple[FloatArithmetic, int]:
    """Put the next step at its place, or refuse it: 1 product, 2 sum, 3 residual, 4 limits."""
    kind, constants = step.name, step.constants
    if kind == "multiply" and place < 1:
        return replace(found, scale=constants[0]), 1
    if kind == "multiply" and place < 2:
        return replace(found, factor=constants[0]), 2
    if kind == "add" and place < 2:
        return replace(found, term=constants[0]), 2
    if kind == "multiply_add" and place < 2:
        return replace(found, factor=constants[0], term=constants[1]), 2
    if kind == RESIDUAL and place < 3:
        return replace(found, has_residual=True), 3
    if kind == "clip" and place < 4:
        return replace(found, low=constants[0], high=constants[1]), 4
    if kind == "maximum" and np.all(np.isneginf(found.low)) and np.all(np.isposinf(found.high)):
        return replace(found, low=constants[0]), 4
    if kind == "minimum" and np.all(np.isposinf(found.high)):
        return replace(found, high=constants[0]), 4
    order = "product, sum, residual, limits"
    cause = f"float step {kind!r} isn't computed there, in {order}"
    raise UnsupportedError(name, cause, "Run it on the CPU")


def _is_normal(x: FloatArithmetic) -> np.ndarray:
    """Whether product and fused sum give 0 or normal numbers for every accumulator, per channel.

    An accumulator other than 0 is at least 1, so that its product with the scale is no smaller
    than the scale. A sum is a multiple of the last places of what it adds: it is 0 or no less than
    these.
    """
    numbers = np.stack([x.scale, x.factor, x.term])
    is_zero = numbers == 0
    # Zeros may stand anywhere; they are taken for 1.
    exponent = np.frexp(np.where(is_zero, np.float32(1), numbers))[1] - 1
    scale, factor, term = exponent
    lowest = [scale, scale + factor - 2 * _FRACTION, term - _FRACTION]
    highest = [scale + _ACC_BITS + 1, scale + factor + _ACC_BITS + 3, term + 1]
    is_finite = np.isfinite(numbers).all(axis=0)
    return is_finite & (np.min(lowest, axis=0) >= _LOWEST) & (np.max(highest, axis=0) < _HIGHEST)
