"""Sizes of a product of two matrices, and how much of it is done at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MatmulSize:
    """Sizes of the matrices: (rows, terms) by (terms, columns).

    Parameters
    ----------
    rows, terms, columns : int
    transpose_right : bool
        Whether the right one is stored as (columns, terms).
    """

    rows: int
    terms: int
    columns: int
    transpose_right: bool = False

    @property
    def right(self) -> tuple[int, int]:
        """Sizes of the right matrix as it is stored."""
        if self.transpose_right:
            return self.columns, self.terms
        return self.terms, self.columns


@dataclass(frozen=True)
class MatmulTile:
    """How much of a product is done at once.

    Parameters
    ----------
    rows, vectors : int
        Rows, and vectors of columns, whose sums lie in registers.
    parts : int
        Parts of the rows that run in parallel, at most.
    """

    rows: int
    vectors: int
    parts: int = 1
