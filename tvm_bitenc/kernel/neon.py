"""What NEON offers to kernels: vectors of 128 bits on 64-bit and 32-bit ARM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ..te.intrinsic import intrinsic
from .isa import TABLE, Isa
from .tir import Vector, constant, joined, lane_constants, reinterpret, splat, vector

MAX_SIGNED = 127


@dataclass(frozen=True)
class Neon(Isa):
    """NEON, with LLVM's names of what the CPU at hand has of it."""

    @property
    def is_scheduled(self) -> bool:
        """Whether LLVM must see into sums of bytes: cores in order depend on its schedule."""
        return "add_saturated" in self.intrinsics

    def popcount_bytes(self, value: Vector) -> Vector:
        """Set bits of every byte, uint8."""
        return tirx.popcount(value)

    def lookup(self, table: Vector, index: Vector) -> Vector:
        """Bytes of `table` at 4-bit indices."""
        if "lookup" in self.intrinsics:
            return super().lookup(table, index)
        name, half = self.intrinsics["lookup_half"], vector("uint8", 8)
        low, high = (list(range(i, i + 8)) for i in (0, 8))
        tables = [T.Bind(tirx.Shuffle([table], side)) for side in (low, high)]
        found = [
            T.Bind(intrinsic(half, name, *tables, T.Bind(tirx.Shuffle([index], side))))
            for side in (low, high)
        ]
        return joined("uint8", 8, found)

    @property
    def most_entries(self) -> int:
        """Entries of the largest table that `table_lookup` takes: four vectors on 64-bit ARM."""
        return TABLE * (4 if "lookup" in self.intrinsics else 1)

    def table_lookup(self, table: Sequence[Vector], entries: int, index: Vector) -> Vector:
        """Bytes of a table of one to four vectors, at indices within it."""
        if entries == TABLE:
            return self.lookup(table[0], index)
        name = self.intrinsics["lookup"].replace("tbl1", f"tbl{len(table)}")
        return intrinsic(vector("uint8", self.vector_bytes), name, *table, index)

    def add_in_place(self, total: Vector, value: Vector) -> Vector:
        """Sum of bytes that doesn't overflow, in the register of `total`.

        Where LLVM schedules, the sum saturates, for it reorders others.
        """
        if self.is_scheduled:
            return intrinsic(str(total.ty.dtype), self.intrinsics["add_saturated"], total, value)
        return self._call("bitenc_add_bytes", str(total.ty.dtype), total, value)

    def select(self, mask: Vector, a: Vector, b: Vector) -> Vector:
        """Bits of `a` where `mask` has ones, of `b` elsewhere, in the register of `mask`."""
        if self.is_scheduled:
            return b ^ (mask & (a ^ b))
        return self._call("bitenc_select", vector("uint64", self.vector_bytes // 8), mask, a, b)

    def multiply_pairs(
        self, total: Vector | None, codes: Vector, weights: Vector, half: int
    ) -> Vector:
        """`total` (int16), if any, plus products of the low or high eight bytes, all signed."""
        if total is None:
            return self._product("int16", self._signed(codes), weights, half)
        name = ("bitenc_multiply_low", "bitenc_multiply_high")[half]
        return self._call(name, vector("int16", self.vector_bytes // 2), total, codes, weights)

    def add_pairs_of_words(self, total: Vector, pairs: Vector) -> Vector:
        """`total` (int32) plus sums of neighbouring lanes of int16."""
        dtype = vector("int32", self.vector_bytes // 4)
        return self._call("bitenc_add_pairs", dtype, total, pairs)

    @property
    def has_matrix(self) -> bool:
        """Whether 2 x 8 bytes times 8 x 2 bytes take one instruction."""
        return "matrix" in self.intrinsics

    def matrix(self, total: Vector, unsigned: Vector, signed: Vector) -> Vector:
        """`total` (int32, 2 x 2) plus products of two rows of eight bytes each."""
        dtype = vector("int32", self.vector_bytes // 4)
        return intrinsic(dtype, self.intrinsics["matrix"], total, unsigned, signed)

    def _call(self, name: str, dtype: str, *operands: Vector) -> Vector:
        """Call one of the `functions`."""
        return tirx.call_pure_extern(dtype, name, *operands)

    def choose_by_bits(self, word: Vector, start: int, ones: Vector, zeros: Vector) -> Vector:
        """Bytes of `ones` where a 64-bit word has bits from `start` on, of `zeros` elsewhere.

        Bytes of the word are repeated and masked: LLVM would take its bits one by one.
        """
        n = self.vector_bytes
        octets = T.Bind(reinterpret(vector("uint8", n), splat(word, n // 8)))
        chosen = lane_constants([(start + lane) // 8 for lane in range(n)], "uint8")
        masks = lane_constants([1 << lane % 8 for lane in range(n)], "uint8")
        is_set = (self.lookup(octets, chosen) & masks) != constant(0, "uint8", n)
        return tirx.Select(is_set, ones, zeros)

    def nibbles(self, value: Vector) -> tuple[Vector, Vector]:
        """Low and high four bits of every byte."""
        low, four = (constant(number, "uint8", self.vector_bytes) for number in (15, 4))
        return value & low, value >> four

    def add_pairs_of_bytes(self, value: Vector) -> Vector:
        """Sums of neighbouring bytes, uint16."""
        name = self.intrinsics["add_pairs_of_bytes"]
        return intrinsic(vector("uint16", self.vector_bytes // 2), name, value)

    def add_neighbours(self, a: Vector, b: Vector) -> Vector:
        """Sums of neighbouring lanes: those of `a`, then those of `b`."""
        dtype, _, count = str(a.ty.dtype).partition("x")
        lanes = int(count)
        is_whole = np.dtype(dtype).itemsize * lanes == self.vector_bytes
        if "add_neighbours" in self.intrinsics and is_whole:
            return intrinsic(str(a.ty.dtype), self.intrinsics["add_neighbours"], a, b)
        even, odd = (tirx.Shuffle([a, b], list(range(i, 2 * lanes, 2))) for i in (0, 1))
        return T.Bind(even) + T.Bind(odd)

    def dot(self, total: Vector, unsigned: Vector, signed: Vector) -> Vector:
        """``total`` (int32) plus the four products of bytes that lie in each 32-bit lane."""
        name, dtype = self.intrinsics["dot"], vector("int32", self.vector_bytes // 4)
        if self.most_code > MAX_SIGNED:
            return intrinsic(dtype, name, total, unsigned, signed)
        # Only the last operand can be a lane that is repeated, which codes are.
        return intrinsic(dtype, name, total, signed, self._signed(unsigned))

    def multiply_add_bytes(self, unsigned: Vector, signed: Vector) -> Vector:
        """Sums of two neighbouring products of bytes, int16."""
        return self._multiply_add("int16", self._signed(unsigned), signed)

    def multiply_add_words(self, a: Vector, b: Vector) -> Vector:
        """Sums of two neighbouring products of int16, int32."""
        return self._multiply_add("int32", a, b)

    def _signed(self, codes: Vector) -> Vector:
        return reinterpret(vector("int8", self.vector_bytes), codes)

    def _multiply_add(self, dtype: str, a: Vector, b: Vector) -> Vector:
        """Products of both halves, neighbours added up."""
        a, b = T.Bind(a), T.Bind(b)
        products = [T.Bind(self._product(dtype, a, b, half)) for half in (0, 1)]
        return T.Bind(self.add_neighbours(*products))

    def _product(self, dtype: str, a: Vector, b: Vector, half: int) -> Vector:
        """Products of the low or the high half of the lanes, twice as wide."""
        lanes = self.vector_bytes // np.dtype(dtype).itemsize
        chosen = list(range(half * lanes, (half + 1) * lanes))
        sides = [tirx.Cast(vector(dtype, lanes), tirx.Shuffle([side], chosen)) for side in (a, b)]
        return sides[0] * sides[1]
