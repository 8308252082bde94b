r"""Codes from codes by a table, 64 channels at a time, with bit operations on planes alone.

The table rises along each axis, so a code reaches t where the first code is at least i and the
second at least :math:`\beta_t(i)`, for some i:

.. math:: [out \ge t] = \bigvee_i [a \ge i] \wedge [b \ge \beta_t(i)]

A table of sums needs no pairs: planes are added with carries, and the sum compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from tvm import te, tirx

from ..encoding import WORD_BITS
from .threshold import planes_of_reached


def lookup(planes: Sequence[te.Tensor], table: np.ndarray, bits: int, channels: int) -> te.Tensor:
    """Planes of ``table[a]`` or ``table[a, b]``.

    Parameters
    ----------
    planes : one or two te.Tensor of uint64, shape (N, H, W, bits, words)
    table : ndarray of uint8, shape (2^bits,) or (2^bits, 2^bits)
        Rising along each axis.
    bits : int
        Of the result.
    channels : int
        Bits beyond are 0.
    """
    outer, words = list(planes[0].shape)[:3], planes[0].shape[4]

    def word(n, y, x, k, index):
        codes = [
            Planes([tensor[n, y, x, plane, index] for plane in range(int(tensor.shape[3]))])
            for tensor in planes
        ]
        found = looked_up(codes, table, bits)
        value = found[-1]
        for plane in reversed(range(bits - 1)):
            value = tirx.Select(k == plane, found[plane], value)
        rest = channels % WORD_BITS
        if not rest or table.flat[0] == 0:
            return value  # Code 0 stays code 0, so the bits behind the last channel stay 0.
        mask = tirx.const(2**rest - 1, "uint64")
        return tirx.Select(index == words - 1, value & mask, value)

    return te.compute((*outer, bits, words), word, name="looked_up")


def looked_up(codes: Sequence[Planes], table: np.ndarray, bits: int) -> list:
    """Planes of the result."""
    if table.ndim == 2 and (sums := by_sum(table)) is not None:
        codes, table = [codes[0].plus(codes[1])], sums
    reached = [_reaches(codes, table, t) for t in range(1, 2**bits)]
    return planes_of_reached(reached)


def by_sum(table: np.ndarray) -> np.ndarray | None:
    """Return g with ``table[a, b] == g[a + b]``, None if there is none."""
    a, b = np.indices(table.shape)
    sums = np.concatenate([table[:, 0], table[-1, 1:]])
    return sums if np.array_equal(sums[a + b], table) else None


def _reaches(codes: Sequence[Planes], table: np.ndarray, t: int):
    """Whether the result is at least t, for 64 channels."""
    if table.ndim == 1:
        return codes[0].at_least(int(np.searchsorted(table, t)))
    found, before = tirx.const(0, "uint64"), table.shape[1]
    for i, row in enumerate(table):
        needed = int(np.searchsorted(row, t))
        if needed < before:  # Else a smaller first code did already.
            found = found | (codes[0].at_least(i) & codes[1].at_least(needed))
        before = min(before, needed)
    return found


class Planes:
    """Words of the planes of one tensor, lowest first, and what is made of them.

    Parameters
    ----------
    words : list of PrimExpr of uint64
    """

    def __init__(self, words: list):
        self.words = words
        self._reached: dict[int, tirx.PrimExpr] = {}

    @cached_property
    def codes(self) -> int:
        """Number of codes."""
        return 2 ** len(self.words)

    def at_least(self, limit: int):
        """Bits of the channels whose code is at least `limit`."""
        if limit >= self.codes:
            return tirx.const(0, "uint64")
        if limit not in self._reached:
            found = tirx.const(2**WORD_BITS - 1, "uint64")
            for plane, word in enumerate(self.words):
                found = (word & found) if limit >> plane & 1 else (word | found)
            self._reached[limit] = found
        return self._reached[limit]

    def plus(self, other: Planes) -> Planes:
        """Sums of codes, one bit longer than the longer ones."""
        zero = tirx.const(0, "uint64")
        length = max(len(self.words), len(other.words))
        a, b = (planes.words + [zero] * (length - len(planes.words)) for planes in (self, other))
        carry, found = zero, []
        for one, two in zip(a, b):
            half = one ^ two
            found.append(half ^ carry)
            carry = (one & two) | (half & carry)
        return Planes([*found, carry])
