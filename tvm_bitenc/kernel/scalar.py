"""What CPUs without vectors offer to kernels: words, and products of pairs where they have them."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from ..te.intrinsic import intrinsic
from .isa import Isa
from .tir import Vector


@dataclass(frozen=True)
class Scalar(Isa):
    """Words of 32 or 64 bits, with LLVM's names of what the CPU at hand does to parts of them."""

    @property
    def has_pairs(self) -> bool:
        """Whether a word is taken as two numbers of 16 bits."""
        return "multiply_add_halves" in self.intrinsics

    def multiply_add_halves(self, total: Vector, a: Vector, b: Vector) -> Vector:
        """`total` plus products of the low halves and of the high halves, all signed."""
        return intrinsic("int32", self.intrinsics["multiply_add_halves"], a, b, total)

    def halves_of_bytes(self, value: Vector, odd: bool) -> Vector:
        """Bytes 0 and 2 of a word, or 1 and 3, signed, as two numbers of 16 bits."""
        if odd:
            value = (value >> 8 & 0xFFFFFF) | value << 24  # LLVM makes a rotation of it.
        return intrinsic("int32", self.intrinsics["halves_of_bytes"], tirx.Cast("int32", value))
