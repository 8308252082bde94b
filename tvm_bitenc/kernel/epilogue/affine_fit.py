"""Affine functions that give the codes of thresholds, or stay close below them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...layer import ConvLayer

Margin = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # Of intercepts, by slope.


@dataclass(frozen=True, eq=False)
class Affine:
    """The function ``slope * acc + intercept`` of every output channel.

    Parameters
    ----------
    slope, intercept : ndarray of float32 or float64, shape (out_channels,)
    """

    slope: np.ndarray
    intercept: np.ndarray


@dataclass(frozen=True, eq=False)
class FixedAffine:
    """The function ``(slope * acc + intercept) >> shift`` of every output channel.

    Parameters
    ----------
    slope : ndarray of int32, shape (out_channels,)
    intercept : ndarray of int64, shape (out_channels,)
    shift : int
    """

    slope: np.ndarray
    intercept: np.ndarray
    shift: int


def affine_below(layer: ConvLayer) -> tuple[Affine, int]:
    """Return an affine function that is below the codes of a layer, by as little as can be.

    Returns
    -------
    affine : Affine
        In float32. Rounded down and clipped, it is never above the code of an accumulator.
    rounds : int
        The code is at most ``2^rounds - 1`` above it.
    """
    thresholds, direction = layer.threshold_unit
    steps = len(thresholds)
    ends = np.stack(layer.accumulator_range) * direction
    low, high = ends.min(axis=0), ends.max(axis=0)
    at = np.clip(thresholds, low, high + 1)
    codes = np.arange(1, steps + 1)[:, None]
    slope = _regression(at, codes, (at > low) & (at <= high))
    rounding = 8 * np.finfo(np.float32).eps * (2 * np.abs(slope * at).max() + steps)
    # As high as it may be: just below a threshold it doesn't reach the threshold's code. One that
    # is always reached has no accumulator below it, and one that never is has none above.
    rises = np.where(at > low, slope * (at - 1) - codes, -steps - 1)
    intercept = -rises.max(axis=0) - rounding
    missing = np.where(at <= high, codes - (slope * at + intercept - rounding), 0)
    rounds = min(max(int(np.ceil(missing.max())), 1).bit_length(), steps.bit_length())
    slope = slope * direction.astype(np.float32)
    return Affine(slope, intercept.astype(np.float32)), rounds


def _regression(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Slope of y over x, by column, of the points that count; float32."""
    number = np.maximum(counts.sum(axis=0), 1)
    dx, dy = (
        np.where(counts, value - (value * counts).sum(axis=0) / number, 0) for value in (x, y)
    )
    return ((dx * dy).sum(axis=0) / np.maximum((dx**2).sum(axis=0), 1)).astype(np.float32)


def fit_affine(layer: ConvLayer) -> Affine | None:
    """Return an affine function that gives a layer's codes, None if a channel has none.

    The code is ``clip(floor(slope * acc + intercept), 0, steps)``, in float32 if that is exact and
    else in float64, and by a margin beyond all rounding. It never falls as ``direction * acc``
    rises; so it is right everywhere if it is right at both ends of the reachable range, at every
    threshold, and just below each.
    """
    fitted = _fitted(layer)
    for dtype in (np.float32, np.float64):
        affine = Affine(fitted.slope.astype(dtype), fitted.intercept.astype(dtype))
        if _is_exact(affine, fitted.acc, fitted.codes, fitted.steps):
            return affine
    return None


def fit_fixed(layer: ConvLayer) -> FixedAffine | None:
    """Return an affine function in integers that gives a layer's codes, None if a channel has none.

    The code is ``clip((slope * acc + intercept) >> shift, 0, steps)``. That function doesn't fall
    as ``direction * acc`` rises either, and nothing in it is rounded but by the shift.
    """
    fitted = _fitted(layer)
    largest = np.abs(fitted.slope).max(), np.abs(fitted.intercept).max()
    room = [limit - np.frexp(value)[1] for limit, value in zip((31, 61), largest) if value > 0]
    shift = int(min([*room, 61]))
    if shift < 0:
        return None
    slope, intercept = (
        np.round(np.ldexp(values, shift)).astype(np.int64)
        for values in (np.clip(fitted.slope, -(2.0**31), 2.0**31), fitted.intercept)
    )
    most = int(np.abs(fitted.acc.astype(np.int64)).max()) * int(np.abs(slope).max())
    if np.abs(slope).max() >= 2**31 or most + int(np.abs(intercept).max()) >= 2**62:
        return None
    value = (fitted.acc.astype(np.int64) * slope + intercept) >> shift
    is_exact = np.array_equal(np.clip(value, 0, fitted.steps), fitted.codes)
    if not is_exact or np.abs(value).max() >= 2**31:
        return None
    return FixedAffine(slope.astype(np.int32), intercept, shift)


@dataclass(frozen=True, eq=False)
class _Fitted:
    """The function whose margin is widest, and codes that any must give.

    Parameters
    ----------
    slope, intercept : ndarray of float64, shape (out_channels,)
    acc, codes : ndarray of int, shape (points, out_channels)
        A function that never falls as ``direction * acc`` rises is right everywhere, if it is
        right at these accumulators.
    steps : int
    """

    slope: np.ndarray
    intercept: np.ndarray
    acc: np.ndarray
    codes: np.ndarray
    steps: int


def codes_at_thresholds(
    thresholds: np.ndarray, direction: np.ndarray, reachable: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return accumulators at which codes change, and just below, and the codes there.

    A function that never falls as ``direction * acc`` rises gives every code, if it gives these.

    Parameters
    ----------
    thresholds : ndarray of int64, shape (steps, out_channels)
    direction : ndarray of int64, shape (out_channels,)
    reachable : (ndarray, ndarray)
        See `ConvLayer.accumulator_range`.

    Returns
    -------
    acc, codes : ndarray of int32 and int64, shape (points, out_channels)
    """
    low, high, at, below = _at_and_below(thresholds, direction, reachable)
    # Points out of reach would ask for codes that no accumulator gets.
    points = np.clip(np.concatenate([at, below, [low, high]]), low, high)
    expected = np.stack(
        [np.searchsorted(t, x, side="right") for t, x in zip(thresholds.T, points.T)], axis=1
    )
    return (points * direction).astype(np.int32), expected


def _at_and_below(
    thresholds: np.ndarray, direction: np.ndarray, reachable: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return ends of the range of ``direction * acc``, thresholds within it, and what is below."""
    ends = np.stack(reachable) * direction
    low, high = ends.min(axis=0), ends.max(axis=0)
    # A threshold that is always or never reached binds at the end of the range alone.
    return low, high, np.maximum(thresholds, low), np.minimum(thresholds - 1, high)


def _fitted(layer: ConvLayer) -> _Fitted:
    thresholds, direction = layer.threshold_unit
    unit = thresholds, direction, layer.accumulator_range
    low, high, at, below = _at_and_below(*unit)
    always, never = thresholds <= low, thresholds > high
    codes = np.arange(1, len(thresholds) + 1)[:, None]

    def margin(slope: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest intercept that the thresholds allow."""
        lowest = np.where(never, -np.inf, codes - slope * at).max(axis=0)
        highest = np.where(always, np.inf, codes - slope * below).min(axis=0)
        return np.maximum(lowest, -1e9), np.minimum(highest, 1e9)

    slope = _widest(margin, len(thresholds))
    lowest, highest = margin(slope)
    # A code that no threshold bounds on one side is bounded by clipping.
    lowest = np.where(lowest <= -1e9, highest - 1, lowest)
    highest = np.where(highest >= 1e9, lowest + 1, highest)
    slope, intercept = slope * direction, (lowest + highest) / 2
    is_constant = np.all(always | never, axis=0)
    slope = np.where(is_constant, 0, slope)
    intercept = np.where(is_constant, always.sum(axis=0) + 0.5, intercept)
    return _Fitted(slope, intercept, *codes_at_thresholds(*unit), len(thresholds))


def _is_exact(affine: Affine, acc: np.ndarray, expected: np.ndarray, steps: int) -> bool:
    """Whether it gives codes by a margin beyond all rounding."""
    value = acc.astype(np.float64) * affine.slope + affine.intercept
    largest = np.abs(value).max() + np.abs(affine.intercept).max()
    margin = 4 * np.finfo(affine.slope.dtype).eps * largest
    bounds = (np.floor(np.clip(value + e, 0, steps)) for e in (-margin, margin))
    return largest < 2**31 and all(np.array_equal(bound, expected) for bound in bounds)


def _widest(margin: Margin, steps: int, rounds: int = 100) -> np.ndarray:
    """Slopes at which the margin is widest: it is a concave function of the slope."""
    low = np.zeros_like(margin(np.zeros(()))[0])
    high = np.full_like(low, steps + 1.0)
    for _ in range(rounds):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        rises = np.subtract(*margin(a)[::-1]) < np.subtract(*margin(b)[::-1])
        low, high = np.where(rises, a, low), np.where(rises, high, b)
    return (low + high) / 2
