"""What a vector instruction set offers to kernels, as TIR expressions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script import builder as T

from ..te.intrinsic import intrinsic
from .tir import Vector, constant, joined, lane_constants, reinterpret, store, vector

TABLE = 16  # Entries that every byte shuffle looks into.


@dataclass(frozen=True)
class Isa:
    """A vector instruction set.

    Parameters
    ----------
    name : str
    vector_bytes : int
        Size of a vector register.
    registers : int
        How many there are.
    intrinsics : dict of str to str
        LLVM's names of the instructions below; one that is missing isn't there.
    has_popcount : bool
        One instruction counts the bits of every 64-bit lane.
    most_code : int
        Largest code that products of bytes take: 127 where both sides are signed.
    functions : str
        LLVM IR of functions that some of the methods call.
    has_floats : bool
        Its vectors compute floats.
    """

    name: str
    vector_bytes: int
    registers: int
    intrinsics: Mapping[str, str]
    has_popcount: bool = False
    most_code: int = 255
    functions: str = ""
    has_floats: bool = True

    @property
    def has_dot(self) -> bool:
        """Whether products of bytes are summed straight into 32 bits."""
        return "dot" in self.intrinsics

    @property
    def has_bit_matrices(self) -> bool:
        """Whether one instruction multiplies bytes by matrices of 8 x 8 bits."""
        return "affine_bits" in self.intrinsics

    @property
    def saturates(self) -> bool:
        """Whether vectors of int32 become bytes, clipped, in few instructions."""
        return {"narrow_words", "narrow_bytes"} <= self.intrinsics.keys()

    @property
    def has_wide_lookup(self) -> bool:
        """Whether one instruction looks up bytes in all of a vector, and counts bits of bytes."""
        return "wide_lookup" in self.intrinsics and self.has_popcount

    @property
    def has_word_lookup(self) -> bool:
        """Whether one instruction looks up words in two vectors."""
        return "lookup_words" in self.intrinsics

    def transpose_bits(self, value: Vector) -> Vector:
        """Bit c of byte 7 - r becomes bit r of byte c, in every 64-bit lane."""
        n = self.vector_bytes
        units = lane_constants([1 << lane % 8 for lane in range(n)], "uint8")
        name, none = self.intrinsics["affine_bits"], tirx.const(0, "int8")
        return intrinsic(vector("uint8", n), name, units, value, none)

    def select_bits(self, value: Vector, bits: Sequence[int]) -> Vector:
        """Bytes, int8, whose bit i is bit ``bits[i]`` of those of `value`."""
        n, name = self.vector_bytes, self.intrinsics["affine_bits"]
        rows = lane_constants([1 << bits[7 - lane % 8] for lane in range(n)], "uint8")
        return intrinsic(vector("int8", n), name, value, rows, tirx.const(0, "int8"))

    def saturated_bytes(self, parts: Sequence[Vector]) -> Vector:
        """Four vectors of int32 as one of uint8, clipped to 0 .. 255.

        Every 16 bytes hold four lanes of each part.
        """
        n = self.vector_bytes
        words = [
            intrinsic(vector("int16", n // 2), self.intrinsics["narrow_words"], *pair)
            for pair in (parts[:2], parts[2:])
        ]
        return intrinsic(vector("uint8", n), self.intrinsics["narrow_bytes"], *words)

    def logic(self, function: Callable, a: Vector, b: Vector, c: Vector) -> Vector:
        """``function(a, b, c)`` of 64-bit lanes, made of bit operations alone.

        One instruction, where there is one: LLVM doesn't find all that it could replace.
        """
        if "ternary" not in self.intrinsics:
            return function(a, b, c)
        truth_table = function(0xF0, 0xCC, 0xAA) & 0xFF
        dtype, name = vector("uint64", self.vector_bytes // 8), self.intrinsics["ternary"]
        return intrinsic(dtype, name, a, b, c, tirx.const(truth_table, "int32"))

    def lookup(self, table: Vector, index: Vector) -> Vector:
        """Bytes of `table` (16 to a 128-bit block) at 4-bit indices; their bit 7 must be 0."""
        n = self.vector_bytes
        return intrinsic(vector("uint8", n), self.intrinsics["lookup"], table, index)

    def wide_lookup(self, table: Vector, index: Vector) -> Vector:
        """Bytes of `table`, a whole vector, at indices within it."""
        n = self.vector_bytes
        return intrinsic(vector("uint8", n), self.intrinsics["wide_lookup"], table, index)

    def lookup_words(self, table: Sequence[Vector], index: Vector) -> Vector:
        """Words of a table of two vectors, int16, at indices (uint16) of which low bits count."""
        n, name = self.vector_bytes, self.intrinsics["lookup_words"]
        return intrinsic(vector("int16", n // 2), name, table[0], index, table[1])

    def repeated_octets(self, value: Vector, numbers: Sequence[int]) -> tuple[Vector, ...]:
        """Some of the 64-bit lanes of a vector of bytes, each in all lanes of one.

        They go through memory: loads repeat what they load, and what shuffles is left to others.
        """
        n, name = self.vector_bytes, self.intrinsics["repeat_octet"]
        stored = T.alloc_buffer((n,), "uint8")
        store(stored, value, 0, n)
        places = [tirx.address_of(stored[8 * number]) for number in numbers]
        return tuple(T.Bind(tirx.call_extern(vector("uint8", n), name, place)) for place in places)

    @property
    def most_entries(self) -> int:
        """Entries of the largest table that `table_lookup` takes."""
        return self.vector_bytes if self.has_wide_lookup else TABLE

    def table_lookup(self, table: Sequence[Vector], entries: int, index: Vector) -> Vector:
        """Bytes of a table at indices within it.

        Parameters
        ----------
        table : sequence of vectors
            One after the other: whole ones, or one of 16 or 32 bytes.
        entries : int
            Bytes of the table, at most `most_entries`.
        index : vector
        """
        (part,), copies = table, self.vector_bytes // entries
        # Where all of a vector is looked into, what lies behind the table doesn't matter.
        rest = constant(0, "uint8", entries) if self.has_wide_lookup else part
        whole = joined("uint8", entries, [part, *[rest] * (copies - 1)])
        return (self.wide_lookup if self.has_wide_lookup else self.lookup)(whole, index)

    def bits_from(self, offsets: Vector, value: Vector) -> Vector:
        """Eight bits of every 64-bit lane from given bits on, for each of its bytes; they wrap."""
        n = self.vector_bytes
        return intrinsic(vector("uint8", n), self.intrinsics["bits_from"], offsets, value)

    def sum_bytes(self, value: Vector) -> Vector:
        """Sum of the eight bytes in every 64-bit lane, uint64."""
        n = self.vector_bytes
        zero = constant(0, "uint8", n)
        return intrinsic(vector("uint64", n // 8), self.intrinsics["sum_bytes"], value, zero)

    def dot(self, total: Vector, unsigned: Vector, signed: Vector) -> Vector:
        """``total`` (int32) plus the four products of bytes that lie in each 32-bit lane."""
        n = self.vector_bytes
        return intrinsic(vector("int32", n // 4), self.intrinsics["dot"], total, unsigned, signed)

    def multiply_add_bytes(self, unsigned: Vector, signed: Vector) -> Vector:
        """Sums of two neighbouring products of bytes, int16; saturates beyond."""
        n = self.vector_bytes
        name = self.intrinsics["multiply_add_bytes"]
        return intrinsic(vector("int16", n // 2), name, unsigned, signed)

    def multiply_add_words(self, a: Vector, b: Vector) -> Vector:
        """Sums of two neighbouring products of int16, int32."""
        n = self.vector_bytes
        return intrinsic(vector("int32", n // 4), self.intrinsics["multiply_add_words"], a, b)

    def add_in_place(self, total: Vector, value: Vector) -> Vector:
        """Sum of bytes that doesn't overflow, in the register of `total`."""
        return total + value

    def nibbles(self, value: Vector) -> tuple[Vector, Vector]:
        """Low and high four bits of every byte."""
        return nibbles(value, self.vector_bytes)

    def choose_by_bits(self, word: Vector, start: int, ones: Vector, zeros: Vector) -> Vector:
        """Bytes of `ones` where a 64-bit word has bits from `start` on, of `zeros` elsewhere."""
        n = self.vector_bytes
        bits = tirx.Cast(f"uint{n}", word >> tirx.const(start, "uint64"))
        return tirx.Select(reinterpret(vector("bool", n), bits), ones, zeros)

    def popcount_bytes(self, value: Vector) -> Vector:
        """Set bits of every byte, uint8, by two table look-ups."""
        n = self.vector_bytes
        counts = [0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4]
        table = lane_constants([counts[lane % 16] for lane in range(n)], "uint8")
        low, high = nibbles(value, n)
        return self.lookup(table, low) + self.lookup(table, high)


def nibbles(value: Vector, lanes: int) -> tuple[Vector, Vector]:
    """Low and high four bits of every byte; shifts work on pairs of bytes, for want of others."""
    mask = constant(15, "uint8", lanes)
    pairs = reinterpret(vector("uint16", lanes // 2), value)
    shifted = reinterpret(vector("uint8", lanes), pairs >> constant(4, "uint16", lanes // 2))
    return value & mask, shifted & mask
