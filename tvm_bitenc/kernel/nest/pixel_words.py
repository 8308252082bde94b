"""The words of one input pixel."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.tirx.script import builder as T

from ..isa import Isa
from ..tir import Expr, constant, lane_constants, load, sum_of_lanes

LANES = 8  # Words to add up at once.


class PixelWords:
    """Words of an input pixel, plane after plane, each loaded once.

    Parameters
    ----------
    per_plane : int
        Words of a plane.
    source : buffer of uint64, optional
        Without one all words are 0, as those of padding are.
    start : expression, optional
        The pixel's first word.
    """

    def __init__(self, per_plane: int, source: tirx.Buffer | None = None, start: Expr = 0):
        self.per_plane, self.source, self.start = per_plane, source, start
        self._loaded: dict[tuple[int, int], Expr] = {}

    def word(self, plane: int, word: Expr) -> Expr:
        """One word of a plane."""
        return self.neighbours(plane * self.per_plane + word, 1)

    def neighbours(self, first: Expr, lanes: int) -> Expr:
        """A vector of neighbouring words; those whose number is an expression are loaded anew."""
        if self.source is None:
            return constant(0, "uint64", lanes)
        if not isinstance(first, int):
            return T.Bind(load(self.source, self.start + first, lanes))
        if (first, lanes) not in self._loaded:
            self._loaded[first, lanes] = T.Bind(load(self.source, self.start + first, lanes))
        return self._loaded[first, lanes]

    def code_sum(self, coefficients: Sequence[int], isa: Isa) -> Expr:
        """Sum of the pixel's codes, int32."""
        if self.source is None:
            return tirx.const(0, "int32")
        factors = [kappa for kappa in coefficients for _ in range(self.per_plane)]
        total, whole = tirx.const(0, "int32"), 0
        if isa.has_popcount:
            whole = len(factors) // LANES * LANES
        if whole:
            total = self._sum_of_vectors(factors[:whole])
        for i, kappa in list(enumerate(factors))[whole:]:
            count = tirx.Cast("int32", tirx.popcount(self.neighbours(i, 1)))
            total = total + count * kappa
        return total

    def _sum_of_vectors(self, factors: list[int]) -> Expr:
        """Sum of whole vectors of words, added up in halves last."""
        total = None
        for i in range(0, len(factors), LANES):
            count = tirx.popcount(self.neighbours(i, LANES))
            term = count * lane_constants(factors[i : i + LANES], "uint64")
            total = term if total is None else total + term
        return tirx.Cast("int32", sum_of_lanes(total, LANES))
