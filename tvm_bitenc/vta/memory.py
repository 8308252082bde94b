"""Where tensors lie in the accelerator's memory: those that live at different times may share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Lifetime:
    """A tensor and the layers between which it must be kept.

    Parameters
    ----------
    name : str
    words : int
    first, last : int
        Positions of the layer that writes it, -1 for the CPU, and of the last one that reads it.
    """

    name: str
    words: int
    first: int
    last: int

    def meets(self, other: Lifetime) -> bool:
        """Whether both are needed at some time; a layer needs what it reads and what it writes."""
        return self.first <= other.last and other.first <= self.last


def plan(lifetimes: Sequence[Lifetime]) -> tuple[dict[str, int], int]:
    """Give each tensor an address: the largest first, each as low as it can be.

    Returns
    -------
    addresses : dict of str to int
        First words, by name.
    words : int
        Of all together.
    """
    placed: list[tuple[int, Lifetime]] = []
    for each in sorted(lifetimes, key=lambda lifetime: -lifetime.words):
        address = 0
        for start, other in sorted(placed, key=lambda pair: pair[0]):
            if other.meets(each) and start < address + each.words and address < start + other.words:
                address = start + other.words
        placed.append((address, each))
    end = max((start + each.words for start, each in placed), default=0)
    return {each.name: start for start, each in placed}, end
