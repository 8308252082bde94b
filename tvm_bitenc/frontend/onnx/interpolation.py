"""What Resize reads: for each new position of an axis, some old ones and their weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Axis:
    """How one axis is resized.

    Parameters
    ----------
    size, result : int
        Old and new number of positions.
    scale : float
        Sets the positions: ``result`` may be less than ``size * scale``, for it is a whole number.
    region : tuple of float
        First and last position that the new axis spans, as parts of the old one.
    """

    size: int
    result: int
    scale: float
    region: tuple[float, float] = (0.0, 1.0)

    @property
    def length(self) -> float:
        """New size before it was rounded."""
        return self.size * self.scale


@dataclass(frozen=True)
class Sampling:
    """How positions between others are read, in the words of the attributes of Resize."""

    mode: str
    positions: str
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False

    @property
    def is_known(self) -> bool:
        """Whether all of it is defined here."""
        return (
            self.mode in ("nearest", "linear", "cubic")
            and self.positions in POSITIONS
            and self.nearest in _NEAREST
            and not (self.antialias and self.mode == "nearest")
        )


def _half_pixel(y: np.ndarray, axis: Axis) -> np.ndarray:
    return (y + 0.5) / axis.scale - 0.5


def _half_pixel_symmetric(y: np.ndarray, axis: Axis) -> np.ndarray:
    return axis.size / 2 * (1 - axis.result / axis.length) + _half_pixel(y, axis)


def _pytorch_half_pixel(y: np.ndarray, axis: Axis) -> np.ndarray:
    return y * 0 - 0.5 if axis.length == 1 else _half_pixel(y, axis)


def _align_corners(y: np.ndarray, axis: Axis) -> np.ndarray:
    return y * 0 if axis.length == 1 else y * (axis.size - 1) / (axis.length - 1)


def _tf_crop_and_resize(y: np.ndarray, axis: Axis) -> np.ndarray:
    first, last = axis.region
    span = (last - first) * (axis.size - 1)
    step = y * 0 + span / 2 if axis.length == 1 else y * span / (axis.length - 1)
    return first * (axis.size - 1) + step


# Old positions of the new ones, by the name that ONNX gives to such a way.
POSITIONS: dict[str, Callable[[np.ndarray, Axis], np.ndarray]] = {
    "align_corners": _align_corners,
    "asymmetric": lambda y, axis: y / axis.scale,
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "tf_crop_and_resize": _tf_crop_and_resize,
}
# Which of two whole numbers a position between them is nearest to.
_NEAREST: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ceil": np.ceil,
    "floor": np.floor,
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
}


def positions(axis: Axis, sampling: Sampling) -> np.ndarray:
    """Old positions that the new ones of an axis stand at."""
    return POSITIONS[sampling.positions](np.arange(axis.result, dtype=np.float64), axis)


def taps(axis: Axis, sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """What each new position is made of.

    Parameters
    ----------
    axis : Axis
    sampling : Sampling

    Returns
    -------
    indices : ndarray of int64
        Old positions, (result, taps).
    weights : ndarray of float32
        Of the same shape.
    """
    x = positions(axis, sampling)
    if sampling.mode == "nearest":
        indices = _NEAREST[sampling.nearest](x)[:, None]
        weights = np.ones_like(indices)
    else:
        reach, kernel = _kernel(sampling)
        squeeze = min(axis.scale, 1.0) if sampling.antialias else 1.0
        first = int(np.floor(-reach / squeeze) + 1)
        indices = np.floor(x)[:, None] + np.arange(first, 2 - first)
        weights = kernel(np.abs(indices - x[:, None]) * squeeze)
        weights = (
            _without_outside(indices, weights, axis.size) if sampling.exclude_outside else weights
        )
        weights = weights / weights.sum(1, keepdims=True)
    used = np.any(weights != 0, axis=0)
    indices, weights = indices[:, used], weights[:, used]
    return np.clip(indices, 0, axis.size - 1).astype(np.int64), weights.astype(np.float32)


def _kernel(sampling: Sampling) -> tuple[int, Callable[[np.ndarray], np.ndarray]]:
    """How far a kernel reaches, and its weight by distance."""
    if sampling.mode == "linear":
        return 1, lambda d: np.maximum(1 - d, 0)
    a = sampling.cubic

    def cubic(d: np.ndarray) -> np.ndarray:
        near = ((a + 2) * d - (a + 3)) * d**2 + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0))

    return 2, cubic


def _without_outside(indices: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    kept = np.where((indices < 0) | (indices >= size), 0, weights)
    return np.where(kept.any(1, keepdims=True), kept, weights)
