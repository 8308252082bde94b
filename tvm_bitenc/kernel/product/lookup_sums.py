"""Sums of looked-up bytes: kept narrow as long as they fit, widened late."""

from __future__ import annotations

from tvm import tirx
from tvm.tirx.script import builder as T

from ..isa import Isa
from ..tir import Expr, Register, constant, joined, reinterpret, vector

SLOT = 16  # Bytes of a table, and output channels that a vector looks up in it.


class LookupSums:
    """Sums of a block of output channels under one pixel.

    Bytes first, then pairs of bytes, then int32 if need be. A pair x counts two channels: the sum
    of x and the sum of its high byte suffice, for the low one is what is left. So the first half of
    the block's channels lies in even bytes, the other half in odd ones.

    Parameters
    ----------
    isa : Isa
    vectors : int
        Of output channels.
    is_narrow : bool
        Whether 16 bits hold whole sums.
    slots : int, optional
        Parts of a vector whose sums are added up at the end; by default there is one to a table.
    """

    def __init__(self, isa: Isa, vectors: int, is_narrow: bool, slots: int | None = None):
        self.isa = isa
        self.lanes = isa.vector_bytes // 2
        self.slots = isa.vector_bytes // SLOT if slots is None else slots
        self.octets = [Register("uint8", isa.vector_bytes) for _ in range(vectors)]
        self.pairs, self.high = (
            [Register("uint16", self.lanes, constant(0, "uint16", self.lanes)) for _ in self.octets]
            for _ in range(2)
        )
        self.half = vectors * self.lanes // self.slots  # Channels of the block in even bytes.
        zero = constant(0, "int32", self.half)
        self.wide = [] if is_narrow else [Register("int32", self.half, zero) for _ in range(2)]

    def clear_octets(self) -> None:
        """Begin to count in bytes."""
        for register in self.octets:
            register.clear()

    def look_up(self, v: int, tables: Expr, index: Expr) -> None:
        """Add what a vector of tables holds at some indices."""
        self.add(v, self.isa.lookup(tables, index))

    def add(self, v: int, found: Expr) -> None:
        """Add bytes to those of a vector."""
        register = self.octets[v]
        register.set(self.isa.add_in_place(register.get(), found))

    def widen(self) -> None:
        """Add the bytes to the pairs."""
        for octets, pairs, high in zip(self.octets, self.pairs, self.high):
            both = T.Bind(reinterpret(vector("uint16", self.lanes), octets.get()))
            pairs.add(both)
            high.add(both >> constant(8, "uint16", self.lanes))

    def scale(self, ratio: int) -> None:
        """Multiply the sum of higher planes when the next one begins."""
        for register in (self.wide or [*self.pairs, *self.high]) if ratio > 1 else ():
            shift = constant(ratio.bit_length() - 1, register.dtype, register.lanes)
            register.set(register.get() << shift)

    def _split(self) -> list[Expr]:
        """Sums of both halves of the channels."""
        pairs, high = (
            T.Bind(add_slots([r.get() for r in registers], self.lanes, self.slots))
            for registers in (self.pairs, self.high)
        )
        return [T.Bind(pairs - (high << constant(8, "uint16", self.half))), high]

    def flush(self, factor: int) -> None:
        """Move the 16-bit sums over to int32."""
        for wide, half in zip(self.wide, self._split()):
            value = tirx.Cast(vector("int32", self.half), half)
            wide.add(value if factor == 1 else value * constant(factor, "int32", self.half))
        for register in (*self.pairs, *self.high):
            register.clear()

    def halves(self) -> list[Expr]:
        """Sums of the low and the high half of the channels."""
        if self.wide:
            return [T.Bind(register.get()) for register in self.wide]
        return self._split()


def add_slots(vectors: list[Expr], lanes: int, slots: int) -> Expr:
    """Add up the slots of each vector (uint16), and put the results side by side.

    Two vectors at a time: the first halves of both next to each other, plus the second halves.
    """
    width = lanes // slots
    while slots > 1:
        owners = lanes // (slots * width)
        paired = len(vectors) > 1
        merged = []
        for i in range(0, len(vectors), 2 if paired else 1):
            chosen = vectors[i : i + 2] if paired else vectors[i : i + 1]
            halves = []
            for half in range(2):
                lanes_of = [
                    (owner * slots + half * (slots // 2) + slot) * width + lane
                    for owner in range(owners * len(chosen))
                    for slot in range(slots // 2)
                    for lane in range(width)
                ]
                halves.append(T.Bind(tirx.Shuffle(chosen, lanes_of)))
            merged.append(T.Bind(halves[0] + halves[1]))
        vectors, slots = merged, slots // 2
        lanes = lanes if paired else lanes // 2
    return joined("uint16", lanes, vectors)
