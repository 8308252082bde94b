"""Grids of least squared error: scales of weights per channel, ranges of activations.

torch's own `HistogramObserver` counts with the levels of an 8-bit dtype, and Brevitas's observers
come with all of Brevitas; neither knows symmetric levels without a zero. What is needed is this
file, so it is written out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...encoding import Encoding
from ...errors import BitencError

BINS = 2048
SMALLEST = np.float32(1e-30)  # Scale of a tensor of zeros, so that nothing is divided by 0.
# Tried shares of the largest magnitude, down to 1/64 for heavy tails at few bits.
SHARES = 2.0 ** -np.linspace(0, 6, 97)
LLOYD_STEPS = 8  # From the best of them to the best nearby.


@dataclass(eq=False)
class Histogram:
    """Counts of a tensor's values over all calibration batches.

    Parameters
    ----------
    low, high : float
        Least and greatest value.
    """

    low: float
    high: float

    def __post_init__(self):
        self.counts = np.zeros(BINS, np.int64)

    def add(self, values: np.ndarray) -> None:
        """Count values."""
        self.counts += np.histogram(values, BINS, (self.low, max(self.high, self.low + 1e-30)))[0]

    @property
    def centres(self) -> np.ndarray:
        """Middle of every bin; exactly 0 in the bin that holds it, as after a ReLU."""
        edges = np.linspace(self.low, self.high, BINS + 1)
        centres = (edges[1:] + edges[:-1]) / 2
        return np.where((edges[:-1] <= 0) & (edges[1:] > 0), 0.0, centres)


def act_encoding(histogram: Histogram, bits: int) -> Encoding:
    """Grid for activations: unsigned where none is negative, else affine.

    The zero point of signed values is a code, so that 0 is exact; with 1 or 2 bits it may lie
    halfway between two codes, as in the paper's symmetric levels.
    """
    top = 2**bits - 1
    if histogram.low >= 0:
        scales = np.maximum(histogram.high * SHARES / top, SMALLEST)
        scale, zero_point = _best(histogram, scales, np.zeros_like(scales), top)
        return Encoding.unsigned(bits, scale)
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    coarse = SHARES[::8]
    scale, zero_point = _affine(histogram, low * coarse, high * coarse, bits)
    # Once more between the neighbours of the best.
    near = 2.0 ** np.linspace(-0.5, 0.5, 13)
    low, high = -zero_point * scale, (top - zero_point) * scale
    scale, zero_point = _affine(histogram, low * near, high * near, bits)
    return Encoding(bits, scale, zero_point)


def _affine(
    histogram: Histogram, lows: np.ndarray, highs: np.ndarray, bits: int
) -> tuple[float, float]:
    """Best of all grids that span one of the lows to one of the highs."""
    top = 2**bits - 1
    low, high = (axis.reshape(-1) for axis in np.meshgrid(lows, highs))
    scales = np.maximum((high - low) / top, SMALLEST)
    steps = 2 if bits <= 2 else 1
    zero_points = np.rint(-low / scales * steps) / steps
    if bits == 1:
        zero_points = np.full_like(scales, 0.5)
    return _best(histogram, scales, zero_points, top)


def _best(
    histogram: Histogram, scales: np.ndarray, zero_points: np.ndarray, top: int
) -> tuple[float, float]:
    """Scale and zero point with the least squared error over a histogram."""
    used = histogram.counts > 0
    x, counts = histogram.centres[used], histogram.counts[used]
    errors = []
    for scale, zero_point in zip(scales, zero_points):
        codes = np.clip(np.rint(x / scale + zero_point), 0, top)
        errors.append(np.dot(counts, np.square((codes - zero_point) * scale - x)))
    best = int(np.argmin(errors))
    return float(scales[best]), float(zero_points[best])


def weight_encoding(weight: np.ndarray, bits: int, where: str = "weight") -> Encoding:
    """Symmetric levels for weights, one scale of least squared error per output channel.

    Odd multiples of half a step use all 2^M codes and need no sum of the activations. With 8 bits
    these are the integers -127 ... 127 instead, which products of bytes take as they are.

    Parameters
    ----------
    weight : ndarray of float32, shape (out_channels, ...)
    bits : int
    where : str
        Name for messages.

    Raises
    ------
    BitencError
        For NaN or infinity.
    """
    if not np.isfinite(weight).all():
        raise BitencError(f"layer {where!r}", "its weight has NaN or infinity", "Train it again")
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    zero_point = 127.0 if bits == 8 else (2**bits - 1) / 2
    largest = np.abs(rows).max(axis=1)
    scales, errors = largest / max(zero_point, 1), np.full(len(rows), np.inf)
    for share in SHARES:
        scale, error = _refined(rows, largest * share / zero_point, zero_point)
        better = error < errors
        scales, errors = np.where(better, scale, scales), np.where(better, error, errors)
    for _ in range(LLOYD_STEPS):
        scales, _ = _refined(rows, scales, zero_point)
    scales = np.maximum(scales, SMALLEST).astype(np.float32)
    return Encoding(bits, scales, zero_point, max_code=int(2 * zero_point))


def _refined(rows: np.ndarray, scale: np.ndarray, zero_point: float):
    """Least-squares scale of the codes that `scale` gives, and the error with it, per row."""
    scale = np.maximum(scale, SMALLEST)[:, None]
    codes = np.clip(np.rint(rows / scale + zero_point), 0, 2 * zero_point) - zero_point
    best = (rows * codes).sum(axis=1) / np.maximum(np.square(codes).sum(axis=1), SMALLEST)
    return best, np.square(rows - codes * best[:, None]).sum(axis=1)
