"""Left codes of a product, row by row: as they are where instructions take them so, or copied."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script import builder as T

from ..tir import (
    Expr,
    Register,
    Vector,
    load,
    load_some,
    only_if,
    reinterpret,
    splat,
    store,
    vector,
)
from .byte_products import ByteProducts
from .size import MatmulSize
from .wrapping import sum_of_lanes, wrapped, wrapping


@dataclass(frozen=True, eq=False)
class Rows:
    """Some neighbouring rows.

    Parameters
    ----------
    buffer : buffer
        Codes as instructions take them.
    start, stride : expression, int
        Where the first row begins there, and how far rows are apart.
    sums : buffer, optional
        What each row adds to its accumulators, uint32; None where that is nothing.
    """

    buffer: tirx.Buffer
    start: Expr
    stride: int
    sums: tirx.Buffer | None

    def repeated(self, products: ByteProducts, row: Expr, step: Expr) -> Vector:
        """The codes of a step in every lane."""
        start = self.start + row * self.stride + step * products.depth
        codes = reinterpret("int32", load(self.buffer, start, products.depth))
        return reinterpret(
            vector(products.left_dtype, products.width), splat(codes, products.lanes)
        )


class LeftCodes:
    """How rows are made ready.

    Parameters
    ----------
    size : MatmulSize
    products : ByteProducts
    source : flat buffer
        Codes.
    """

    def __init__(self, size: MatmulSize, products: ByteProducts, source: tirx.Buffer):
        self.size, self.products, self.source = size, products, source

    def prepare(self, image: Expr, first: Expr, count: int, is_partial: bool) -> Rows:
        """Make some rows ready.

        Parameters
        ----------
        image, first : expression
            Number of the product in the batch, and of the first row.
        count : int
        is_partial : bool
            Whether there may be fewer rows.
        """
        size, products = self.size, self.products
        start = T.Bind((image * size.rows + first) * size.terms)
        has_sums = products.right.rest != 0
        if products.takes_left_codes and size.terms % products.depth == 0 and not has_sums:
            return Rows(self.source, start, size.terms, None)
        stride = -(-size.terms // products.width) * products.width
        copy = T.alloc_buffer((count * stride,), products.left_dtype)
        sums = T.alloc_buffer((count,), "uint32") if has_sums else None
        rows = Rows(copy, 0, stride, sums)
        with T.serial(0, count) as row, only_if(is_partial, first + row < size.rows):
            self._copy(start + row * size.terms, rows, row)
        return rows

    def _copy(self, start: Expr, rows: Rows, row: Expr) -> None:
        """Write a row as instructions take it, and zeros behind it."""
        products, width, total = self.products, self.products.width, self.products.zero()
        whole, rest = divmod(self.size.terms, width)
        with T.serial(0, whole) as chunk:
            at = chunk * width
            self._write(load(self.source, start + at, width), rows, row, at, width, total)
        if rest:
            at = whole * width
            codes = load_some(self.source, start + at, rest, width)
            self._write(codes, rows, row, at, rest, total)
        if rows.sums is not None:
            factor = wrapped(products.left.factor * products.right.rest)
            summed = sum_of_lanes(T.Bind(wrapping(total.get(), products.lanes)), products.lanes)
            T.buffer_store(rows.sums, summed * factor, [row])

    def _write(
        self, codes: Vector, rows: Rows, row: Expr, at: Expr, count: int, total: Register
    ) -> None:
        """Write a vector of which `count` codes are there, and add them up by lane."""
        products = self.products
        values = products.left_of(codes, range(count))
        store(rows.buffer, values, row * rows.stride + at, products.width)
        products.add(total, values, products.right_ones)
