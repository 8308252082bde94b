"""Products of bytes of two matrices, summed in 32-bit lanes.

Four products at once into 32 bits; two at once into 16 bits, widened late; or two 16-bit products
at once into 32 bits: the first that the instruction set has and that can't overflow.
"""

from __future__ import annotations

from collections.abc import Collection

from tvm import tirx
from tvm.tirx.script import builder as T

from ..isa import Isa
from ..tir import Register, Vector, constant, lane_constants, reinterpret, vector
from .byte_form import ByteForm

QUAD, PAIR = 4, 2  # Terms to a lane, of 8 bits and of 16.
MAX_WORD = 32767


class ByteProducts:
    """How an instruction set multiplies the codes of two matrices.

    Parameters
    ----------
    left, right : ByteForm
        Of codes that are multiplied as unsigned bytes, and as signed ones.
    isa : Isa
    """

    def __init__(self, left: ByteForm, right: ByteForm, isa: Isa):
        self.left, self.right, self.isa = left, right, isa
        self.widen_after = MAX_WORD // max(2 * left.largest * right.largest, 1)
        self.method = "dot" if isa.has_dot else "bytes" if self.widen_after else "words"
        is_wide = self.method == "words"
        self.left_dtype, self.right_dtype = ("int16",) * 2 if is_wide else ("uint8", "int8")
        self.lanes = isa.vector_bytes // 4
        self.depth = PAIR if is_wide else QUAD  # Terms that lie side by side in a lane.
        self.width = self.lanes * self.depth  # Elements of a vector that is multiplied.

    @property
    def widens_late(self) -> bool:
        """Whether 16 bits sum the pairs of `widen_after` steps."""
        return self.method == "bytes"

    @property
    def takes_left_codes(self) -> bool:
        """Whether left codes are multiplied as they are."""
        return self.left.is_plain and self.left_dtype == "uint8"

    def left_of(self, codes: Vector, there: Collection[int]) -> Vector:
        """A vector of left codes as it is multiplied, 0 but in lanes that are `there`."""
        octets = self._octets(self.left, codes, there)
        if self.left_dtype == "uint8":
            return octets
        is_signed = self.left.addend < 0
        return self._wide(reinterpret(vector("int8", self.width), octets) if is_signed else octets)

    def right_of(self, codes: Vector, there: Collection[int]) -> Vector:
        """The same of right codes."""
        octets = self._octets(self.right, codes, there)
        octets = T.Bind(reinterpret(vector("int8", self.width), octets))
        return octets if self.right_dtype == "int8" else self._wide(octets)

    def _octets(self, form: ByteForm, codes: Vector, there: Collection[int]) -> Vector:
        octets = form.bytes_of(codes, self.width)
        if len(there) == self.width:
            return octets
        mask = [255 if lane in there else 0 for lane in range(self.width)]
        return T.Bind(octets & lane_constants(mask, "uint8"))

    def _wide(self, octets: Vector) -> Vector:
        return T.Bind(tirx.Cast(vector("int16", self.width), octets))

    @property
    def left_ones(self) -> Vector:
        """What makes sums of right bytes of a product."""
        return constant(1, self.left_dtype, self.width)

    @property
    def right_ones(self) -> Vector:
        """What makes sums of left bytes of a product."""
        return constant(1, self.right_dtype, self.width)

    def zero(self) -> Register:
        """No sum yet."""
        return Register("int32", self.lanes, constant(0, "int32", self.lanes))

    def sum(self, total: Vector, left: Vector, right: Vector) -> Vector:
        """``total`` (int32) plus the products of every lane."""
        if self.method == "dot":
            return self.isa.dot(total, left, right)
        if self.method == "words":
            return total + self.isa.multiply_add_words(left, right)
        return self.widened(total, T.Bind(self.isa.multiply_add_bytes(left, right)))

    def add(self, total: Register, left: Vector, right: Vector) -> None:
        """Add the products of every lane."""
        total.set(self.sum(total.get(), left, right))

    def zero_pairs(self) -> Register:
        """No pairs yet, where those of several steps are summed."""
        return Register("int16", 2 * self.lanes, constant(0, "int16", 2 * self.lanes))

    def add_pairs(self, pairs: Register, left: Vector, right: Vector) -> None:
        """Add sums of two products."""
        pairs.add(self.isa.multiply_add_bytes(left, right))

    def widened(self, total: Vector, pairs: Vector) -> Vector:
        """``total`` (int32) plus pairs."""
        one = constant(1, "int16", 2 * self.lanes)
        return total + self.isa.multiply_add_words(pairs, one)
