"""Codes of two matrices as bytes: which ones instructions multiply, and what is added to the sums.

A code has a level x, its bits weighted by the coefficients, and stands for the integer 2 x + e.
Instructions take bytes p = m x + c, modulo 256, in terms of which integers are f p + r. Then

.. math:: \\sum (f p + r) (f' p' + r')
    = f f' \\sum p p' + f r' \\sum p + r f' \\sum p' + r r' \\sum 1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script import builder as T

from ...encoding import are_positional
from ..tir import Vector, constant

MIN_BYTE, MAX_BYTE = -128, 127
MAX_CODE = 255
SHIFT = 128


@dataclass(frozen=True)
class ByteForm:
    """How the codes of one matrix become bytes.

    Parameters
    ----------
    coefficients : tuple of int
        Of the planes, all positive, 255 at most in sum.
    multiple, addend : int
        m and c.
    factor, rest : int
        f and r.
    """

    coefficients: tuple[int, ...]
    multiple: int
    addend: int
    factor: int
    rest: int

    @property
    def is_plain(self) -> bool:
        """Whether bytes are the codes themselves."""
        return self._is_positional and (self.multiple, self.addend) == (1, 0)

    @property
    def largest(self) -> int:
        """Largest magnitude of a byte."""
        return max(abs(self.addend), abs(self.multiple * sum(self.coefficients) + self.addend))

    @property
    def _is_positional(self) -> bool:
        return are_positional(self.coefficients)

    def bytes_of(self, codes: Vector, lanes: int) -> Vector:
        """Bytes of a vector of codes, uint8."""
        value = codes if self._is_positional else self._level(T.Bind(codes), lanes)
        if self.multiple == 2:
            value = T.Bind(value)
            value = value + value
        if self.addend:
            value = value + constant(self.addend % 256, "uint8", lanes)
        return T.Bind(value)

    def _level(self, codes: Vector, lanes: int) -> Vector:
        zero, level = constant(0, "uint8", lanes), None
        for m, coefficient in enumerate(self.coefficients):
            is_set = (codes & constant(1 << m, "uint8", lanes)) != zero
            term = tirx.Select(is_set, constant(coefficient, "uint8", lanes), zero)
            level = term if level is None else level + term
        return level


def fits_bytes(coefficients: Sequence[int]) -> bool:
    """Whether there are forms of such codes."""
    return min(coefficients) > 0 and sum(coefficients) <= MAX_CODE


def unsigned_form(coefficients: Sequence[int], offset: int, most: int) -> ByteForm:
    """Form of the codes that instructions take as unsigned bytes.

    Parameters
    ----------
    coefficients : sequence of int
    offset : int
        o of the encoding.
    most : int
        Largest byte that they take so; codes beyond are taken less 128, signed.
    """
    top = sum(coefficients)
    shift = SHIFT if top > most else 0
    return ByteForm(tuple(coefficients), 1, -shift, 2, offset - top + 2 * shift)


def signed_form(coefficients: Sequence[int], offset: int) -> ByteForm:
    """Form of the codes that instructions take as signed bytes.

    Best has no rest, for then the other matrix needs no sums of its rows: half the integers where
    they are even, the integers themselves where these fit a byte.
    """
    top = sum(coefficients)
    zero = offset - top  # The integer of level 0.
    # Levels less a number among them: as near to half the integer as bytes can be.
    taken = min(max(-(zero // 2), top - MAX_BYTE, 0), -MIN_BYTE, top)
    halves = ByteForm(tuple(coefficients), 1, -taken, 2, zero + 2 * taken)
    if halves.rest and zero >= MIN_BYTE and 2 * top + zero <= MAX_BYTE:
        return ByteForm(tuple(coefficients), 2, zero, 1, 0)
    return halves
