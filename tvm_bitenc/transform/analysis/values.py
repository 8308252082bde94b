"""Encodings of constant weights, found from their values alone.

A checkpoint holds what training made: ``alpha * sign(w)``, codewords out of a table, integers times
a scale. Whoever made them, weights of few values that lie on a grid, channel by channel, are
quantized weights.
"""

from __future__ import annotations

import numpy as np

from ...encoding import Encoding, are_positional
from ...errors import UnsupportedError
from ...levels import plane_coefficients
from .grid import TOLERANCE

MAX_VALUES = 256
MIN_CONFIRMED = 8  # Weights of a tensor beyond the first of each channel.
MAX_DIVISOR = 255  # Of the smallest distance, which is a multiple itself where levels are uneven.


def encoding_of_values(values: np.ndarray, axis: int) -> Encoding | None:
    """Find the encoding that constant weights have, None where they are on no grid of 256 levels.

    Each channel's values are multiples of a number of its own: of half of it where all multiples
    are odd, as in ``alpha * sign(w)``. All channels have the same levels but for that number.

    Parameters
    ----------
    values : ndarray of float32
    axis : int
        Where channels of a scale of their own lie.

    Returns
    -------
    Encoding or None
        Per channel, or per tensor where all scales agree. It changes no value by more than float32
        arithmetic rounds.
    """
    # A channel's first weight lies on any grid; each other one is unlikely to, were it a float.
    if values.size - values.shape[axis] < MIN_CONFIRMED:
        return None
    found: list[tuple[float, np.ndarray]] = []
    for channel in np.moveaxis(values, axis, 0):  # Of floats, the first one tells.
        multiples = multiples_of(np.unique(channel).astype(np.float64))
        if multiples is None:
            return None
        found.append(multiples)
    return _encoding(values, axis, np.array([step for step, _ in found]), [own for _, own in found])


def multiples_of(values: np.ndarray, limit: int = MAX_VALUES) -> tuple[float, np.ndarray] | None:
    """Largest number whose multiples some values are, and which multiples they are.

    Parameters
    ----------
    values : ndarray of float64
        Rising, no two the same.
    limit : int
        All multiples are smaller.

    Returns
    -------
    (step, multiples) or None
        Step 0 where there are no values but zeros; None where no step makes multiples so small.
    """
    if len(values) > MAX_VALUES or not np.isfinite(values).all():
        return None
    largest = np.abs(values).max(initial=0.0)  # Of a tensor without elements, too.
    if largest == 0:
        return 0.0, np.zeros(len(values), np.int64)
    distances = np.concatenate([np.diff(values), np.abs(values)])
    smallest = distances[distances > TOLERANCE * largest].min()
    for divisor in range(1, MAX_DIVISOR + 1):
        multiples = np.rint(values * (divisor / smallest))
        most = np.abs(multiples).max()
        if most >= limit:
            return None
        step = largest / most  # The largest value has the smallest relative error.
        if np.abs(values - multiples * step).max() <= TOLERANCE * largest:
            return float(step), multiples.astype(np.int64)
    return None


def _encoding(
    values: np.ndarray, axis: int, steps: np.ndarray, multiples: list[np.ndarray]
) -> Encoding | None:
    """One encoding for the multiples of all channels."""
    every = np.unique(np.concatenate(multiples))
    scale, zero_point = np.where(steps > 0, steps, 1.0), -every[0] + 0.0
    span = int(every[-1] - every[0])
    if np.all(every % 2) and span:  # Odd: half as many levels, none of them 0.
        scale, zero_point, span = 2 * scale, zero_point / 2, span // 2
    scale = scale.astype(np.float32)
    if np.all(scale == scale[0]):
        scale = scale[0]
    try:
        encoding = _planes_of(every, span, scale, zero_point)
    except UnsupportedError:
        return None
    found = encoding.dequantize(encoding.quantize(values, axis), axis)
    others = tuple(i for i in range(values.ndim) if i != axis)
    largest, error = (np.abs(x).max(axis=others) for x in (values, found - values))
    return encoding if np.all(error <= TOLERANCE * largest) else None


def _planes_of(every: np.ndarray, span: int, scale: np.ndarray, zero_point: float) -> Encoding:
    """Encoding of multiples over `span` steps: of few and uneven ones, in fewer planes."""
    levels = (every - every[0]) * span // max(int(every[-1] - every[0]), 1)
    coefficients = plane_coefficients(levels)
    if are_positional(coefficients):
        return Encoding(len(coefficients), scale, zero_point, max_code=max(span, 1))
    return Encoding(len(coefficients), scale, zero_point, coefficients)
