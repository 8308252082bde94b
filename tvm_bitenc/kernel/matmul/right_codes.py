"""Right codes of a product in panels: columns in lanes, terms of a step side by side in each."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script import builder as T

from ..tir import (
    Expr,
    Register,
    Vector,
    constant,
    load,
    load_some,
    reinterpret,
    splat,
    store,
    vector,
)
from .byte_products import PAIR, ByteProducts
from .size import MatmulSize
from .wrapping import wrapped, wrapping


@dataclass(frozen=True, eq=False)
class Panel:
    """All codes of some neighbouring columns.

    Parameters
    ----------
    buffer : buffer
        Codes as instructions take them: (steps, vectors, lanes, depth).
    sums : buffer, optional
        What each column adds to its accumulators, uint32; None where that is nothing.
    first : expression
        Number of the first column.
    columns, vectors : int
    lanes : int
        Columns to a vector.
    """

    buffer: tirx.Buffer
    sums: tirx.Buffer | None
    first: Expr
    columns: int
    vectors: int
    lanes: int

    def lanes_of(self, number: int) -> int:
        """Lanes of a vector that hold a column."""
        return min(self.columns - number * self.lanes, self.lanes)

    def factors(self, products: ByteProducts, step: Expr) -> list[Vector]:
        """The vectors of a step."""
        width = products.width
        return [
            T.Bind(load(self.buffer, step * (self.vectors * width) + v * width, width))
            for v in range(self.vectors)
        ]


class RightCodes:
    """How panels are made.

    Parameters
    ----------
    size : MatmulSize
    products : ByteProducts
    source : flat buffer
        Codes.
    """

    def __init__(self, size: MatmulSize, products: ByteProducts, source: tirx.Buffer):
        self.size, self.products, self.source = size, products, source
        self.lanes, self.depth = products.lanes, products.depth

    def prepare(self, image: Expr, first: Expr, columns: int) -> Panel:
        """Make a panel.

        Parameters
        ----------
        image, first : expression
            Number of the product in the batch, and of the first column.
        columns : int
        """
        products, vectors = self.products, -(-columns // self.lanes)
        whole, rest = divmod(self.size.terms, self.depth)
        steps = whole + (rest > 0)
        buffer = T.alloc_buffer((steps * vectors * products.width,), products.right_dtype)
        has_sums = products.left.rest != 0
        sums = T.alloc_buffer((vectors * self.lanes,), "uint32") if has_sums else None
        panel = Panel(buffer, sums, first, columns, vectors, self.lanes)
        totals = [products.zero() for _ in range(vectors)]
        with T.serial(0, whole) as step:
            self._write(panel, image, step, self.depth, totals)
        if rest:
            self._write(panel, image, whole, rest, totals)
        self._write_sums(panel, totals)
        return panel

    def _write(
        self, panel: Panel, image: Expr, step: Expr, terms: int, totals: list[Register]
    ) -> None:
        """Write the vectors of a step that has so many terms, and add them up by column."""
        products = self.products
        gather = self._of_columns if self.size.transpose_right else self._of_terms
        there = [i for i in range(products.width) if i % self.depth < terms]
        for v, total in enumerate(totals):
            at = image, step * self.depth, panel.first + v * self.lanes
            codes = T.Bind(gather(*at, terms, panel.lanes_of(v)))
            values = products.right_of(codes, there)
            store(panel.buffer, values, (step * len(totals) + v) * products.width, products.width)
            products.add(total, products.left_ones, values)

    def _write_sums(self, panel: Panel, totals: list[Register]) -> None:
        """Write what columns add to accumulators."""
        left, right, lanes = self.products.left, self.products.right, self.lanes
        if panel.sums is None:
            return
        factor = splat(wrapped(left.rest * right.factor), lanes)
        added = splat(wrapped(self.size.terms * left.rest * right.rest), lanes)
        for v, total in enumerate(totals):
            store(panel.sums, wrapping(total.get(), lanes) * factor + added, v * lanes, lanes)

    def _of_terms(self, image: Expr, term: Expr, column: Expr, terms: int, columns: int) -> Vector:
        """A vector from a matrix whose rows are terms."""
        start = (image * self.size.terms + term) * self.size.columns + column
        rows = [
            load_some(self.source, start + i * self.size.columns, columns, self.lanes)
            for i in range(terms)
        ]
        rows += [constant(0, "uint8", self.lanes)] * (self.depth - terms)
        width = self.lanes * self.depth
        return tirx.Shuffle(
            rows, [i % self.depth * self.lanes + i // self.depth for i in range(width)]
        )

    def _of_columns(
        self, image: Expr, term: Expr, column: Expr, terms: int, columns: int
    ) -> Vector:
        """A vector from a matrix whose rows are columns."""
        start = (image * self.size.columns + column) * self.size.terms + term
        dtype = "int16" if self.depth == PAIR else "int32"
        parts = [
            load_some(self.source, start + i * self.size.terms, terms, self.depth)
            for i in range(columns)
        ]
        lanes = [T.Bind(reinterpret(dtype, part)) for part in parts]
        lanes += [tirx.const(0, dtype)] * (self.lanes - columns)
        together = T.Bind(tirx.Shuffle(lanes, list(range(self.lanes))))
        return reinterpret(vector("uint8", self.lanes * self.depth), together)
