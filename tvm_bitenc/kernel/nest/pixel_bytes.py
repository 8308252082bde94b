"""The codes of one input pixel, a byte each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx

from ..isa import Isa
from ..tir import Expr, Register, Vector, constant, load_some, sum_of_lanes


@dataclass(frozen=True, eq=False)
class PixelBytes:
    """Codes of an input pixel, channel after channel.

    Parameters
    ----------
    channels : int
    source : buffer of uint8, optional
        Without one all codes are 0, as those of padding are.
    start : expression, optional
        Where the pixel begins.
    """

    channels: int
    source: tirx.Buffer | None = None
    start: Expr = 0

    def neighbours(self, first: int, lanes: int) -> Vector:
        """A vector of neighbouring codes; 0 behind the last channel."""
        count = min(lanes, self.channels - first)
        if self.source is None or count <= 0:
            return constant(0, "uint8", lanes)
        return load_some(self.source, self.start + first, count, lanes)

    def code_sum(self, _coefficients: Sequence[int], isa: Isa) -> Expr:
        """Sum of the codes, int32."""
        if self.source is None:
            return tirx.const(0, "int32")
        lanes = isa.vector_bytes
        total = Register("int32", lanes // 4, constant(0, "int32", lanes // 4))
        for first in range(0, self.channels, lanes):
            codes = self.neighbours(first, lanes)
            total.set(isa.dot(total.get(), codes, constant(1, "int8", lanes)))
        return sum_of_lanes(total.get(), lanes // 4)
