"""Counts of one pixel in registers: bytes while they fit, then 16 bits, then a weighted sum."""

from __future__ import annotations

from collections.abc import Mapping

from tvm import tirx
from tvm.tirx.script import builder as T

from ..neon import Neon
from ..tir import Expr, Register, constant, reinterpret, vector

BYTE_BITS = 8
MAX_BYTE, MAX_PAIR = 255, 65535
LANES = 8  # Of the weighted sum.


class WideningCounter:
    """Counts by vector of weights and coefficient, kept narrow as long as they fit.

    Parameters
    ----------
    isa : Neon
    vectors : range
        Vectors of weights.
    per_step : dict of int to int
        How many counts a step adds, by coefficient.
    steps, between : int
        Steps in all, and between two calls of `flush`; the same where that isn't called.
    dtype : str
        Of the weighted sum.
    """

    def __init__(
        self,
        isa: Neon,
        vectors: range,
        per_step: Mapping[int, int],
        steps: int,
        between: int,
        dtype: str,
    ):
        self.isa, self.steps, self.between = isa, steps, between
        self.most = {factor: BYTE_BITS * count for factor, count in per_step.items()}
        self.total = Register(dtype, LANES)
        self.total.clear()
        self.octets = {
            factor: [Register("uint8", isa.vector_bytes) for _ in vectors] for factor in per_step
        }
        self._first = vectors.start
        self.early = [factor for factor, most in self.most.items() if most * steps > MAX_BYTE]
        self._pairs = {factor: self._registers(factor) for factor in self.early}
        # A dict keeps them in order: the same layer always gives the same code.
        self._fresh = dict.fromkeys(
            register
            for factor, registers in self.octets.items()
            if factor not in self.early
            for register in registers
        )

    def _registers(self, factor: int) -> list[Register]:
        """Registers of 16 bits for a coefficient; none where they couldn't hold its sum."""
        if self.most[factor] * self.steps * LANES > MAX_PAIR:
            return []
        count, most = len(self.octets[factor]), self.most[factor] * self.between
        while count > 1 and 2 * most <= MAX_BYTE:
            count, most = count // 2, 2 * most
        registers = [Register("uint16", self.isa.vector_bytes // 2) for _ in range(count)]
        for register in registers:
            register.clear()
        return registers

    def begin(self) -> None:
        """Forget what `flush` moved."""
        self._fresh.update((register, None) for f in self.early for register in self.octets[f])

    def settle(self) -> None:
        """Clear registers that have no value yet: a loop is to begin."""
        for register in self._fresh:
            register.clear()
        self._fresh.clear()

    def add(self, v: int, factor: int, bits: Expr) -> None:
        """Count the bits of a vector."""
        octets = reinterpret(vector("uint8", self.isa.vector_bytes), bits)
        register, count = self.octets[factor][v - self._first], self.isa.popcount_bytes(octets)
        if register in self._fresh:
            del self._fresh[register]
            register.set(count)
        else:
            register.set(self.isa.add_in_place(register.get(), count))

    def flush(self) -> None:
        """Move the bytes that would overflow."""
        for factor in self.early:
            values = self._joined_bytes(factor, self.between)
            if self._pairs[factor]:
                for register, value in zip(self._pairs[factor], values):
                    register.add(self.isa.add_pairs_of_bytes(value))
            else:
                self._add(factor, [self.isa.add_pairs_of_bytes(value) for value in values])

    def finish(self) -> Expr:
        """Weighted sums, one vector of eight lanes."""
        for factor in self.octets:
            if factor not in self.early:
                values = self._joined_bytes(factor, self.steps)
                self._add(factor, [self.isa.add_pairs_of_bytes(value) for value in values])
            elif self._pairs[factor]:
                self._add(factor, [register.get() for register in self._pairs[factor]])
        return T.Bind(self.total.get())

    def _joined_bytes(self, factor: int, steps: int) -> list[Expr]:
        """Vectors of bytes, neighbours added up as often as they can't overflow."""
        values = [T.Bind(register.get()) for register in self.octets[factor]]
        most = self.most[factor] * steps
        while len(values) > 1 and 2 * most <= MAX_BYTE:
            values, most = neighbours_added(self.isa, values), 2 * most
        return values

    def _add(self, factor: int, values: list[Expr]) -> None:
        """Add vectors of 16 bits to the weighted sum."""
        values = [T.Bind(value) for value in values]
        while len(values) > 1:
            values = neighbours_added(self.isa, values)
        value, dtype = values[0], self.total.dtype
        if dtype != "uint16":
            value = tirx.Cast(vector(dtype, LANES), value)
        if factor != 1:
            value = value * constant(factor, dtype, LANES)
        self.total.add(value)


def neighbours_added(isa: Neon, values: list) -> list:
    """Sums of neighbouring lanes, of two vectors at a time."""
    return [T.Bind(isa.add_neighbours(*pair)) for pair in zip(values[::2], values[1::2])]
