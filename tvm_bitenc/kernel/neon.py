"""What NEON offers to kernels: vectors of 128 bits on 64-bit and 32-bit ARM."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script import builder as T

from .isa import Isa
from .tir import constant, intrinsic, vector


@dataclass(frozen=True)
class Neon(Isa):
    """NEON, with LLVM's names of what the CPU at hand has of it."""

    def popcount_bytes(self, value):
        """Set bits of every byte, uint8."""
        return tirx.popcount(value)

    def add_in_place(self, total, value):
        """Sum of bytes that doesn't overflow, in the register of `total`.

        It saturates, for LLVM reorders plain sums, and then runs out of registers.
        """
        name = self.intrinsics["add_saturated"]
        return intrinsic(str(total.ty.dtype), name, total, value)

    def nibbles(self, value):
        """Low and high four bits of every byte."""
        low, four = (constant(number, "uint8", self.vector_bytes) for number in (15, 4))
        return value & low, value >> four

    def add_pairs_of_bytes(self, value):
        """Sums of neighbouring bytes, uint16."""
        name = self.intrinsics["add_pairs_of_bytes"]
        return intrinsic(vector("uint16", self.vector_bytes // 2), name, value)

    def add_neighbours(self, a, b):
        """Sums of neighbouring lanes: those of `a`, then those of `b`."""
        dtype, _, lanes = str(a.ty.dtype).partition("x")
        lanes = int(lanes)
        if "add_neighbours" in self.intrinsics and dtype in ("uint8", "uint16"):
            return intrinsic(str(a.ty.dtype), self.intrinsics["add_neighbours"], a, b)
        even, odd = (tirx.Shuffle([a, b], list(range(i, 2 * lanes, 2))) for i in (0, 1))
        return T.Bind(even) + T.Bind(odd)
