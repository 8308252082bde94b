"""How much a kernel does at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """How much a kernel does at once.

    Parameters
    ----------
    pixels : int
        Neighbouring output pixels of a row.
    vectors : int
        Vectors of output channels; a *block* of channels has ``vectors * lanes`` of them.
    rows : int
        Output rows whose input is prepared together; a divisor of the output height.
    splits : int
        Parts of the blocks of channels that run in parallel; a divisor of their number.
    unroll : int
        Most steps of the innermost sum that are written out one after another; 0 leaves it to the
        product.
    """

    pixels: int
    vectors: int
    rows: int = 1
    splits: int = 1
    unroll: int = 0


def divisors(number: int) -> list[int]:
    """All divisors, rising."""
    return [d for d in range(1, number + 1) if number % d == 0]
