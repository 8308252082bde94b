"""What NEON offers to kernels: vectors of 128 bits on 64-bit and 32-bit ARM."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from .isa import Isa
from .tir import constant, intrinsic, joined, reinterpret, vector


@dataclass(frozen=True)
class Neon(Isa):
    """NEON, with LLVM's names of what the CPU at hand has of it."""

    def popcount_bytes(self, value):
        """Set bits of every byte, uint8."""
        return tirx.popcount(value)

    def lookup(self, table, index):
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

    def add_in_place(self, total, value):
        """Sum of bytes, in the register of `total`."""
        return self._call("bitenc_add_bytes", str(total.ty.dtype), total, value)

    def select(self, mask, a, b):
        """Bits of `a` where `mask` has ones, of `b` elsewhere, in the register of `mask`."""
        return self._call("bitenc_select", vector("uint64", self.vector_bytes // 8), mask, a, b)

    def _call(self, name: str, dtype: str, *operands):
        """Call one of the `functions`."""
        return tirx.call_pure_extern(dtype, name, *operands)

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
        lanes, is_whole = int(lanes), np.dtype(dtype).itemsize * int(lanes) == self.vector_bytes
        if "add_neighbours" in self.intrinsics and is_whole:
            return intrinsic(str(a.ty.dtype), self.intrinsics["add_neighbours"], a, b)
        even, odd = (tirx.Shuffle([a, b], list(range(i, 2 * lanes, 2))) for i in (0, 1))
        return T.Bind(even) + T.Bind(odd)

    def dot(self, total, unsigned, signed):
        """``total`` (int32) plus the four products of bytes that lie in each 32-bit lane."""
        n = self.vector_bytes
        name = self.intrinsics["dot"]
        return intrinsic(vector("int32", n // 4), name, total, self._signed(unsigned), signed)

    def multiply_add_bytes(self, unsigned, signed):
        """Sums of two neighbouring products of bytes, int16."""
        return self._multiply_add("int16", self._signed(unsigned), signed)

    def multiply_add_words(self, a, b):
        """Sums of two neighbouring products of int16, int32."""
        return self._multiply_add("int32", a, b)

    def _signed(self, codes):
        return reinterpret(vector("int8", self.vector_bytes), codes)

    def _multiply_add(self, dtype: str, a, b):
        """Products of both halves, neighbours added up."""
        a, b = T.Bind(a), T.Bind(b)
        lanes = self.vector_bytes // np.dtype(dtype).itemsize
        wide = vector(dtype, lanes)
        products = []
        for half in (range(lanes), range(lanes, 2 * lanes)):
            sides = [tirx.Cast(wide, tirx.Shuffle([side], list(half))) for side in (a, b)]
            products.append(T.Bind(sides[0] * sides[1]))
        return T.Bind(self.add_neighbours(*products))
