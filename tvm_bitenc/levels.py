"""Which planes hold levels that lie at any distances: the fewest whose weighted bits make them.

Levels are integers that rise from 0. A level is the sum of the coefficients of those planes whose
bit is set. Three kinds of planes are tried:

- *binary*, coefficients 1, 2, 4, ...: a code is its own level;
- *a basis*, one plane for each level that isn't a sum of smaller ones: learned bases, sums of signs
  and additive powers of two have many levels in few of them;
- *a thermometer*, one plane for each step from a level to the next, codes 0, 1, 3, 7, ...: any
  levels at all, in one plane less than there are levels.

Codes rise with their levels in all of them. So they pass through max-pooling, and a code still is
the number of thresholds that a sum reaches: thresholds repeat where codes are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .encoding import Encoding
from .errors import UnsupportedError

MAX_PLANES = 8


def plane_coefficients(levels: Sequence[int]) -> tuple[int, ...]:
    """Coefficients of the fewest planes that make levels, lowest plane first.

    Of as many, binary ones go first: more kernels take them, and the accelerator does.

    Parameters
    ----------
    levels : sequence of int
        Rising from 0.

    Raises
    ------
    UnsupportedError
        Where that takes more than 8 planes.
    """
    binary = tuple(1 << plane for plane in range(max(int(levels[-1]).bit_length(), 1)))
    basis, thermometer = _basis(levels), tuple(int(step) for step in np.diff(levels))
    found = binary
    for other in (thermometer, basis):
        if 0 < len(other) < len(found) and _rises(levels, other):
            found = other
    if len(found) > MAX_PLANES:
        raise UnsupportedError(
            "encoding",
            f"{len(levels)} levels up to {levels[-1]} take {len(found)} planes, and a tensor has "
            f"{MAX_PLANES} at most",
            "Use up to 9 levels, levels up to 255, or sums of up to 8 integers",
        )
    return found


def encoding_of_levels(
    levels: Sequence[int], bounds: Sequence[float], scale: float, zero_point: float
) -> Encoding:
    """Return the encoding of levels at any distances, and of any bounds between them.

    Parameters
    ----------
    levels : sequence of int
        x / s + z of each, rising from 0.
    bounds : sequence of float
        Where the second level and each further one begin.
    scale, zero_point : float
        See `Encoding`.

    Raises
    ------
    UnsupportedError
        For levels or bounds that don't rise, and levels that 8 planes can't hold.
    """
    coefficients = plane_coefficients(levels)
    codes = codes_of_levels(levels, coefficients)
    return Encoding(len(coefficients), scale, zero_point, coefficients, codes=codes, bounds=bounds)


def codes_of_levels(levels: Sequence[int], coefficients: Sequence[int]) -> tuple[int, ...]:
    """Return the least code of each level, whose weighted bits add up to it."""
    sums = np.zeros(1, np.int64)
    for coefficient in coefficients:
        sums = np.concatenate([sums, sums + coefficient])
    return tuple(int(np.flatnonzero(sums == level)[0]) for level in levels)


def _basis(levels: Sequence[int]) -> tuple[int, ...]:
    """Levels that aren't sums of smaller ones, up to as many as there may be planes."""
    basis: list[int] = []
    sums = {0}
    for level in map(int, levels):
        if level not in sums:
            basis.append(level)
            sums |= {total + level for total in sums}
        if len(basis) > MAX_PLANES:
            return ()
    return tuple(basis)


def _rises(levels: Sequence[int], coefficients: Sequence[int]) -> bool:
    """Whether higher levels have higher codes."""
    return bool(np.all(np.diff(codes_of_levels(levels, coefficients)) > 0))
