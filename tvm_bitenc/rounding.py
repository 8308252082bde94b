"""How a position between two codes becomes a code: the rounding modes, in numpy float32.

``sign`` isn't among the functions: it looks at the value, not at its position.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_HALF = np.float32(0.5)


def _away_from_zero(x: np.ndarray) -> np.ndarray:
    return np.where(x < 0, np.floor(x), np.ceil(x))


def _half_away_from_zero(x: np.ndarray) -> np.ndarray:
    return np.where(x < 0, np.ceil(x - _HALF), np.floor(x + _HALF))


def _half_toward_zero(x: np.ndarray) -> np.ndarray:
    return np.where(x < 0, np.floor(x + _HALF), np.ceil(x - _HALF))


ROUND: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "half_even": np.rint,
    "floor": np.floor,
    "ceil": np.ceil,
    "toward_zero": np.trunc,
    "away_from_zero": _away_from_zero,
    "half_away_from_zero": _half_away_from_zero,
    "half_toward_zero": _half_toward_zero,
}
ROUNDINGS = (*ROUND, "sign")
