"""How large accumulators can get, which must fit int32."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .encoding import Encoding
from .errors import UnsupportedError

INT32_MAX = 2**31 - 1


def accumulator_bound(
    weight_codes: np.ndarray, weight: Encoding, act: Encoding, branches: ArrayLike | None = None
) -> int:
    """Largest absolute value that an accumulator, or any partial sum of its terms, can take.

    With a branch matrix, see `reference.conv2d`, it doesn't depend on the weights.
    """
    if branches is not None:
        sides = [sum(map(abs, side.integer_coefficients)) for side in (weight, act)]
        offsets = [int(np.abs(side.offset).max()) for side in (weight, act)]
        alone = offsets[0] * sides[1] + offsets[1] * (sides[0] + offsets[0])
        return weight_codes[0].size * (int(np.abs(branches).sum()) + alone)
    offsets = np.abs(np.broadcast_to(weight.offset, weight_codes.shape[:1])).astype(np.int64)
    per_tap = np.abs(weight.bipolar(weight_codes)).reshape(len(weight_codes), -1).astype(np.int64)
    weight_sum = per_tap.sum(axis=1) + offsets * per_tap.shape[1]
    return int(weight_sum.max() * (np.abs(act.bipolar_values).max() + abs(int(act.offset))))


def check_accumulator(bound: int, where: str) -> None:
    """Raise `UnsupportedError` if an accumulator of this bound doesn't fit int32."""
    if bound > INT32_MAX:
        raise UnsupportedError(
            where,
            f"its accumulator can reach {bound}, beyond int32",
            "Use fewer weight or activation bits, or split the input channels over two layers",
        )
