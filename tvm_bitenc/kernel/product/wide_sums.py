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
    interleaved,
    joined,
    lane_constants,
    reinterpret,
    vector,
)

LANE = 8  # Neighbouring channels: half of the 16 bytes that instructions interleave.


class WideSums:
    """Sums of a block of output channels under one pixel.

    Bytes first, by plane; then pairs of bytes, in which the planes are added up; then int32 if need
    be. Two planes are interleaved, and multiplied by their coefficients in one instruction. The
    first 8 of every 16 bytes belong to the first half of the block's channels.

    Parameters
    ----------
    isa : Isa
    vectors : int
        Of output channels.
    coefficients : sequence of int
        Of the planes of the weight.
    is_narrow : bool
        Whether 16 bits hold whole sums.
    """

    def __init__(self, isa: Isa, vectors: int, coefficients: Sequence[int], is_narrow: bool):
        self.isa, self.coefficients = isa, coefficients
        n = isa.vector_bytes
        self.octets = [[Register("uint8", n) for _ in coefficients] for _ in range(vectors)]
        zero = constant(0, "uint16", n // 2)
        # By half of the channels, then by vector.
        self.pairs = [[Register("uint16", n // 2, zero) for _ in self.octets] for _ in range(2)]
        self.wide = []
        if not is_narrow:
            zero = constant(0, "int32", vectors * n // 2)
            self.wide = [Register("int32", vectors * n // 2, zero) for _ in range(2)]

    def clear_octets(self) -> None:
        """Begin to count in bytes."""
        for register in itertools.chain(*self.octets):
            register.clear()

    def look_up(self, table: Vector, index: Sequence[Vector]) -> None:
        """Add what a table holds at the indices of every vector and plane."""
        for register, chosen in zip(itertools.chain(*self.octets), index):
            register.add(self.isa.wide_lookup(table, chosen))

    def widen(self) -> None:
        """Add the bytes of all planes to the pairs."""
        for v, planes in enumerate(self.octets):
            values = [T.Bind(register.get()) for register in planes]
            for m in range(0, len(values), 2):
                self._add(v, values[m : m + 2], self.coefficients[m : m + 2])

    def _add(self, v: int, planes: Sequence[Vector], coefficients: Sequence[int]) -> None:
        """Add one plane or two, times their coefficients."""
        n = self.isa.vector_bytes
        other = planes[1] if len(planes) > 1 else constant(0, "uint8", n)
        factors = lane_constants([*coefficients, 0][:2] * (n // 2), "int8")
        for half, registers in enumerate(self.pairs):
            value = T.Bind(interleaved(planes[0], other, n, 1, half))
            if len(planes) > 1 or coefficients[0] > 1:
                value = self.isa.multiply_add_bytes(value, factors)
            registers[v].add(reinterpret(vector("uint16", n // 2), value))

    def flush(self) -> None:
        """Move the 16-bit sums over to int32."""
        for wide, registers in zip(self.wide, self.pairs):
            wide.add(tirx.Cast(vector("int32", wide.lanes), self._joined(registers)))
            for register in registers:
                register.clear()

    def halves(self) -> list[Expr]:
        """Sums of the first and the second half of the channels."""
        if self.wide:
            return [T.Bind(register.get()) for register in self.wide]
        return [T.Bind(self._joined(registers)) for registers in self.pairs]

    def _joined(self, registers: Sequence[Register]) -> Vector:
        return joined("uint16", self.isa.vector_bytes // 2, [r.get() for r in registers])
