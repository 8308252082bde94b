"""Layers whose kernels are few: each is one of some *codewords*, and an index says which.

So weights of sub-bit networks (Wang et al., arXiv 2110.09195) and of sparse kernel selection (Wang
et al., arXiv 2303.14470) are made. They are found by their values, whoever made them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MAX_CODEWORDS, MIN_INDEX_BITS = 64, 4
MIN_TAPS, MAX_TAPS = 4, 9  # With fewer, tables of neighbouring channels do as much.
MIN_READERS = 4  # Kernels to a codeword: with fewer, nothing is gained.
MAX_KEY_BITS = 62
SAMPLE = 4096  # Kernels of which most layers have too many different ones already.


@dataclass(frozen=True, eq=False)
class Codewords:
    """The distinct kernels of a layer.

    Parameters
    ----------
    kernels : ndarray of uint8, shape (codewords, taps)
        Codes of their weights, in rising order.
    index : ndarray of uint8, shape (out_channels, in_channels / groups)
        Number of the codeword that each kernel is.
    """

    kernels: np.ndarray
    index: np.ndarray

    @property
    def index_bits(self) -> int:
        """Bits that an index is stored in: those that tell codewords apart, four at least."""
        return max((len(self.kernels) - 1).bit_length(), MIN_INDEX_BITS)

    @property
    def stored_bytes(self) -> int:
        """Size of all indices, and of sums that each codeword has without a tap or with one."""
        sums = (1 + self.kernels.shape[1]) << self.index_bits
        return self.index.size * self.index_bits // 8 + sums


def codewords_of(weight_codes: np.ndarray, bits: int) -> Codewords | None:
    """Find the codewords of a layer, None where there are too many.

    Parameters
    ----------
    weight_codes : ndarray of uint8
        Shape (out_channels, in_channels / groups, height, width).
    bits : int
        Of the codes.
    """
    out_channels, in_channels, *window = weight_codes.shape
    taps = int(np.prod(window))
    if not MIN_TAPS <= taps <= MAX_TAPS or bits * taps > MAX_KEY_BITS:
        return None
    places = np.int64(1) << bits * np.arange(taps, dtype=np.int64)
    kernels = weight_codes.reshape(-1, taps)
    for some in (kernels[:SAMPLE], kernels):
        found, index = np.unique(some @ places, return_inverse=True)
        if len(found) > MAX_CODEWORDS or len(found) * MIN_READERS > len(kernels):
            return None
    codes = found[:, None] // places % 2**bits
    shape = (out_channels, in_channels)
    return Codewords(codes.astype(np.uint8), index.reshape(shape).astype(np.uint8))


def any_codes(
    shape: Sequence[int],
    bits: int,
    codewords: int = 0,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Random weight codes, uint8, where only sizes are known.

    Parameters
    ----------
    shape : (out_channels, in_channels / groups, height, width)
    bits : int
    codewords : int
        Of how many kernels they are made, as far as there are so many; 0 for no such limit.
    rng : Generator, optional
    """
    rng = np.random.default_rng(0) if rng is None else rng
    if not codewords:
        return rng.integers(0, 2**bits, shape, dtype=np.uint8)
    kernels = rng.integers(0, 2**bits, (4 * codewords, *shape[2:]), dtype=np.uint8)
    most = min(codewords, max(shape[0] * shape[1] // MIN_READERS, 1))
    kernels = rng.permutation(np.unique(kernels, axis=0))[:most]
    index = rng.integers(0, len(kernels), shape[0] * shape[1])
    index[: len(kernels)] = np.arange(len(kernels))  # Each is there.
    return kernels[index.reshape(shape[:2])]
