r"""Which counts a sum of branches takes: one per pair of planes, or three for two by two planes.

Two planes of each side with the same ratio of coefficients have four branches

.. math:: A\,a_1 w_1 + B\,a_0 w_0 + C\,(a_1 w_0 + a_0 w_1), \qquad a, w \in \{-1,+1\},
          \quad A B = C^2

of which one is the product of the other three. Other matrices of two by two coefficients, of
branches that are no product, form no square. With :math:`p = a_1 w_1` and :math:`q = a_0 w_0`,
the last two cancel where p and q differ, and are equal where p and q are. So

.. math:: (A - C)\,p + (B + C)\,q + 2 C\,t, \qquad
          t = \begin{cases} a_1 w_0 & p = q \\ p & \text{else} \end{cases}

is the same number: three counts, with coefficients 2, 3 and 4 for two bits by two bits; and two
counts for ternary values, where A = C.

Sums of one side alone are cheap. With them p and q keep their coefficients; and in terms of bits
(:math:`s = a_1 \oplus w_1`, :math:`x = a_1 \oplus a_0`, :math:`y = w_1 \oplus w_0`) the last two
branches are

.. math:: (a_1 \oplus w_0) + (a_0 \oplus w_1) = 2 t - x + y, \qquad
          t = \begin{cases} \lnot y & s = 1 \\ x & \text{else} \end{cases}

where t takes one instruction, and coefficients are A, B and 2 C: 4, 1 and 4 for two bits by two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Single:
    """One branch.

    Parameters
    ----------
    act, weight : int
        Its planes.
    factor : int
        Its coefficient.
    """

    act: int
    weight: int
    factor: int

    @property
    def factors(self) -> tuple[int, ...]:
        """Coefficients of its counts."""
        return (self.factor,)


@dataclass(frozen=True)
class Square:
    """Four branches: of two neighbouring activation planes and two neighbouring weight planes.

    Parameters
    ----------
    act, weight : int
        The lower plane of each side.
    high, low, mixed : int
        Coefficients of p, q and t.
    """

    act: int
    weight: int
    high: int
    low: int
    mixed: int

    @property
    def factors(self) -> tuple[int, ...]:
        """Coefficients of its counts."""
        return tuple(factor for factor in (self.high, self.low, self.mixed) if factor)


@dataclass(frozen=True)
class OffsetSquare(Square):
    """The same four branches, but for sums of one side alone.

    `mixed` is the coefficient of the second t, and half of it that of y - x.
    """


def cover(matrix: Sequence[Sequence[int]], may_offset: bool = False) -> list[Single | Square]:
    """Cover all branches whose coefficient isn't 0, with squares where planes allow.

    Parameters
    ----------
    matrix : sequence of sequence of int
        Coefficients of the branches: a row for each weight plane, lowest plane first.
    may_offset : bool
        Whether sums of one side alone can be added; they gain nothing for ternary values.
    """
    found: list[Single | Square] = []
    for k in range(0, len(matrix[0]), 2):
        for m in range(0, len(matrix), 2):
            rows = [row[k : k + 2] for row in matrix[m : m + 2]]
            square = _square(k, m, rows, may_offset)
            singles = [
                Single(k + i, m + j, row[i])
                for i in range(len(rows[0]))
                for j, row in enumerate(rows)
                if row[i]
            ]
            found += [square] if square else singles
    return found


def _square(
    act: int, weight: int, rows: Sequence[Sequence[int]], may_offset: bool
) -> Square | None:
    """Return the square of up to two planes of each side, None if they form none."""
    if len(rows) < 2 or len(rows[0]) < 2:
        return None
    (low, cross), (other, high) = rows
    if cross != other or low * high != cross * other or not 0 < low <= cross <= high:
        return None
    if may_offset and high != cross:
        return OffsetSquare(act, weight, high, low, 2 * cross)
    return Square(act, weight, high - cross, low + cross, 2 * cross)
