"""Layers whose kernels are few: each is one of some *codewords*, and an index says which.

So weights of sub-bit networks (Wang et al., arXiv 2110.09195) and of sparse kernel selection (Wang
et al., arXiv 2303.14470) are made. They are found by their values, whoever made them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_CODEWORDS = 64
MAX_TAPS = 9
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
        """Bits that tell codewords apart."""
        return max(len(self.kernels) - 1, 1).bit_length()


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
    if taps > MAX_TAPS or bits * taps > MAX_KEY_BITS:
        return None
    places = np.int64(1) << bits * np.arange(taps, dtype=np.int64)
    kernels = weight_codes.reshape(-1, taps)
    for some in (kernels[:SAMPLE], kernels):
        found, index = np.unique(some @ places, return_inverse=True)
        if len(found) > MAX_CODEWORDS:
            return None
    codes = found[:, None] // places % 2**bits
    shape = (out_channels, in_channels)
    return Codewords(codes.astype(np.uint8), index.reshape(shape).astype(np.uint8))
