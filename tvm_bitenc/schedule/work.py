"""The speed model: instructions by kind, and the cycles that a core takes for them.

Rule sets say what work a layer is (`costs`), and what products take at best (`limits.py`); `[core]`
of a target file says how fast a core is. Nothing else in the package knows rates.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

from ..target import Core


@dataclass(frozen=True)
class Work:
    """Instructions by kind.

    Parameters
    ----------
    vector : float
        On vectors, but for those below.
    count, lookup, product : float
        Counts of bits; look-ups in tables of bytes; products of bytes.
    other : float
        Loads, stores, addresses, loops.
    """

    vector: float = 0.0
    count: float = 0.0
    lookup: float = 0.0
    product: float = 0.0
    other: float = 0.0

    @property
    def instructions(self) -> float:
        """All of them."""
        return sum(astuple(self))

    def times(self, count: float) -> Work:
        """Return as much work `count` times."""
        return Work(*(count * value for value in astuple(self)))

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other))))

    def cycles(self, core: Core) -> float:
        """Cycles that a core takes: what is scarcest decides.

        That may be the starting of all instructions, what does one kind of them, or the pipes that
        all kinds of vector instructions share. One of which less than one starts in a cycle keeps
        all pipes busy until the next.
        """
        kinds = (
            (self.count, core.count),
            (self.lookup, core.lookup),
            (self.product, core.product),
        )
        slots = self.vector + sum(n * (1 if rate >= 1 else core.vector / rate) for n, rate in kinds)
        scarcest = max(n / rate for n, rate in kinds)
        return max(self.instructions / core.issue, scarcest, slots / core.vector)
