"""Sums of looked-up bytes, one byte to an output channel and plane of the weight."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tvm import tirx
from tvm.tirx.script import builder as T

from ..isa import Isa
from ..tir import (
    Expr,
    Register,
    Vector,
    constant,
    joined,
    lane_constants,
    reinterpret,
    vector,
)

PAIR = 32  # Output channels to a vector of pairs of bytes.
BYTE = 8


class WideSums:
    """Sums of a block of output channels under one pixel.

    Bytes first; then pairs of bytes, in which the planes are added up; then int32 if need be. Two
    planes of 32 channels lie in one vector, those of a channel side by side: one instruction
    multiplies them by their coefficients and adds them. A plane that is left over has 64 channels
    to a vector, the first 32 of them in even bytes. Alone, it is added up two bytes as one number,
    beside the odd bytes: without these, times 256, the even ones are left.

    Parameters
    ----------
    isa : Isa
    block : int
        Output channels, a multiple of 64; or of 32 where the planes are even in number.
    coefficients : sequence of int
        Of the planes of the weight.
    is_narrow : bool
        Whether 16 bits hold whole sums.
    """

    def __init__(self, isa: Isa, block: int, coefficients: Sequence[int], is_narrow: bool):
        self.isa, self.coefficients, n = isa, coefficients, isa.vector_bytes
        self.is_mixed = list(coefficients) == [1]
        self.octets = [
            [Register("uint8", n) for _ in range(count)] for count in octets_of(block, coefficients)
        ]
        zero = constant(0, "uint16", PAIR)
        self.pairs = [Register("uint16", PAIR, zero) for _ in range(block // PAIR)]
        self.wide = []
        if not is_narrow:
            parts = min(len(self.pairs), 2)
            zero = constant(0, "int32", block // parts)
            self.wide = [Register("int32", block // parts, zero) for _ in range(parts)]

    def clear_octets(self) -> None:
        """Begin to count in bytes."""
        for register in itertools.chain(*self.octets):
            register.clear()

    def look_up(self, table: Vector, index: Sequence[Vector]) -> None:
        """Add what a table holds at the indices of every vector."""
        for register, chosen in zip(itertools.chain(*self.octets), index):
            register.add(self.isa.wide_lookup(table, chosen))

    def widen(self) -> None:
        """Add the bytes of all planes to the pairs."""
        for first, registers in zip(range(0, len(self.coefficients), 2), self.octets):
            coefficients = self.coefficients[first : first + 2]
            octets = [T.Bind(register.get()) for register in registers]
            if len(coefficients) == 2:
                values = [self._added(octet, coefficients) for octet in octets]
            else:
                values = [value for octet in octets for value in self._halves(octet)]
            for pair, value in zip(self.pairs, values):
                pair.add(value)

    def _halves(self, octets: Vector) -> tuple[Vector, Vector]:
        """What a plane without another beside it adds to its even and its odd channels."""
        if not self.is_mixed:
            kappa = self.coefficients[-1]
            return self._added(octets, (kappa, 0)), self._added(octets, (0, kappa))
        words = T.Bind(reinterpret(vector("uint16", PAIR), octets))
        return words, words >> constant(BYTE, "uint16", PAIR)

    def _added(self, octets: Vector, coefficients: Sequence[int]) -> Vector:
        """Neighbouring bytes times the coefficients, added up."""
        factors = lane_constants(list(coefficients) * PAIR, "int8")
        words = self.isa.multiply_add_bytes(octets, factors)
        return reinterpret(vector("uint16", PAIR), words)

    def flush(self) -> None:
        """Move the 16-bit sums over to int32."""
        for wide, value in zip(self.wide, self._parts()):
            wide.add(tirx.Cast(vector("int32", wide.lanes), value))
        for register in self.pairs:
            register.clear()

    def parts(self) -> list[Expr]:
        """Sums of the first and of the second half of the channels; of 32 channels, of all."""
        if self.wide:
            return [T.Bind(register.get()) for register in self.wide]
        return [T.Bind(value) for value in self._parts()]

    def _parts(self) -> list[Vector]:
        values = [register.get() for register in self.pairs]
        if self.is_mixed:
            odd = [T.Bind(value) for value in values[1::2]]
            even = [a - (b << constant(BYTE, "uint16", PAIR)) for a, b in zip(values[::2], odd)]
            values = [value for pair in zip(even, odd) for value in pair]
        size = max(len(values) // 2, 1)
        return [joined("uint16", PAIR, values[i : i + size]) for i in range(0, len(values), size)]


def octets_of(block: int, coefficients: Sequence[int]) -> list[int]:
    """Vectors of bytes of each two planes of the weight, and of the one that is left over."""
    pairs, single = divmod(len(coefficients), 2)
    return [block // PAIR] * pairs + [block // (2 * PAIR)] * single
