"""The loops of a product of two matrices of codes.

::

    for every pair of matrices, and some rows of the left one:                     # in parallel
        the left codes as they are, or a copy in the form that instructions take, and its sums
        for some vectors of columns:
            a panel: all right codes of these columns, as instructions take them, and their sums
            for some rows: sums of products in registers; accumulators are written

Columns lie in 32-bit lanes, a few terms deep; see `byte_products.py` for how these are summed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from ..isa import Isa
from ..kernel import Kernel
from ..nest.memory import elements_of
from ..nest.tile import divisors
from ..tir import (
    Expr,
    Register,
    Vector,
    flat,
    imported,
    load,
    only_if,
    reinterpret,
    splat,
    store_some,
    vector,
)
from .byte_form import ByteForm
from .byte_products import ByteProducts
from .left_codes import LeftCodes, Rows
from .right_codes import Panel, RightCodes
from .size import MatmulSize, MatmulTile
from .wrapping import wrapped, wrapping

MAX_UNROLL = 4

Totals: TypeAlias = "list[list[Register]]"  # By row, and vector of columns.
Add: TypeAlias = "Callable[[Register, Vector, Vector], None]"


def matmul_kernel(
    size: MatmulSize,
    batch: tirx.Var | int,
    forms: tuple[ByteForm, ByteForm],
    isa: Isa,
    tile: MatmulTile,
    parallel: bool,
) -> Kernel:
    """Return the kernel of `bitenc.branch_matmul`.

    Parameters
    ----------
    size : MatmulSize
    batch : tirx.Var or int
        How many products there are.
    forms : (ByteForm, ByteForm)
        Of the left codes, unsigned, and of the right ones, signed.
    isa : Isa
    tile : MatmulTile
    parallel : bool
    """
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        left = T.arg("left", T.buffer((batch, size.rows, size.terms), "uint8"))
        right = T.arg("right", T.buffer((batch, *size.right), "uint8"))
        out = T.arg("out", T.buffer((batch, size.rows, size.columns), "int32"))
        with imported(isa.functions):
            rows = [flat(x, elements_of(x), str(x.dtype)) for x in (left, right, out)]
            _Nest(size, ByteProducts(*forms, isa), tile, rows).write(left.shape[0], parallel)
    return Kernel(builder.get(), [])


@dataclass(frozen=True, eq=False)
class _Task:
    """What is bound where a task begins.

    Parameters
    ----------
    image, part : expression
        Number of the product in the batch, and of the part of its rows.
    first : expression
        Number of the first row.
    rows : Rows
    """

    image: Expr
    part: Expr
    first: Expr
    rows: Rows


class _Nest:
    """See `matmul_kernel`.

    Parameters
    ----------
    size : MatmulSize
    products : ByteProducts
    tile : MatmulTile
    arguments : list of flat buffers
        Left codes, right codes, accumulators.
    """

    def __init__(
        self,
        size: MatmulSize,
        products: ByteProducts,
        tile: MatmulTile,
        arguments: list[tirx.Buffer],
    ):
        self.size, self.products, self.tile = size, products, tile
        left, right, self.out = arguments
        self.left = LeftCodes(size, products, left)
        self.right = RightCodes(size, products, right)
        self.steps = -(-size.terms // products.depth)
        self.tiles, self.last_rows = divmod(size.rows, tile.rows)
        self.tiles_to_part = -(-self.tiles // tile.parts)
        self.parts = -(-self.tiles // self.tiles_to_part)

    def write(self, batch: Expr, parallel: bool) -> None:
        """Write the loops."""
        parts, rows = self.parts, self.tiles_to_part * self.tile.rows
        with (T.parallel if parallel else T.serial)(0, batch * parts) as number:
            image, part = (number // parts, number % parts) if parts > 1 else (number, 0)
            first = T.Bind(part * rows) if parts > 1 else 0
            prepared = self.left.prepare(image, first, rows + self.last_rows, parts > 1)
            task = _Task(image, part, first, prepared)
            for column, columns, count in self._blocks():
                with T.serial(0, count) as block:
                    panel = self.right.prepare(image, column + block * columns, columns)
                    self._write_rows(task, panel)

    def _blocks(self) -> list[tuple[int, int, int]]:
        """First column, columns, and number of neighbouring blocks of as many columns."""
        columns = self.tile.vectors * self.products.lanes
        whole, rest = divmod(self.size.columns, columns)
        found = [(0, columns, whole), (whole * columns, rest, 1)]
        return [block for block in found if block[1] and block[2]]

    def _write_rows(self, task: _Task, panel: Panel) -> None:
        """Write the accumulators of a task's rows under a panel."""
        rows, parts, count = self.tile.rows, self.parts, self.tiles_to_part
        with (
            T.serial(0, count) as tile,
            only_if(count * parts > self.tiles, task.part * count + tile < self.tiles),
        ):
            self._write_tile(task, panel, tile * rows, rows)
        if self.last_rows:
            with only_if(parts > 1, task.part == parts - 1):
                row = T.Bind(self.tiles * rows - task.first)
                self._write_tile(task, panel, row, self.last_rows)

    def _write_tile(self, task: _Task, panel: Panel, row: Expr, rows: int) -> None:
        """Write the accumulators of some rows."""
        products, lanes = self.products, self.products.lanes
        factor = splat(wrapped(products.left.factor * products.right.factor), lanes)
        for p, totals in enumerate(self._sums(task.rows, panel, row, rows)):
            place = (task.image * self.size.rows + task.first + row + p) * self.size.columns
            for v, total in enumerate(totals):
                value = wrapping(total.get(), lanes) * factor
                if panel.sums is not None:
                    value = value + load(panel.sums, v * lanes, lanes)
                if task.rows.sums is not None:
                    value = value + splat(task.rows.sums[row + p], lanes)
                value, start = reinterpret(vector("int32", lanes), value), place + panel.first
                store_some(self.out, value, start + v * lanes, panel.lanes_of(v), lanes)

    def _sums(self, left: Rows, panel: Panel, first_row: Expr, rows: int) -> Totals:
        """Sums of products of all terms."""
        products = self.products
        totals = [[products.zero() for _ in range(panel.vectors)] for _ in range(rows)]

        def add_step(sums: Totals, step: Expr, add: Add) -> None:
            factors = panel.factors(products, step)
            for p, of_row in enumerate(sums):
                codes = T.Bind(left.repeated(products, first_row + p, step))
                for total, factor in zip(of_row, factors):
                    add(total, codes, factor)

        def add_late(first: Expr, count: int) -> None:
            pairs = [[products.zero_pairs() for _ in of_row] for of_row in totals]
            unroll = max(d for d in divisors(count) if d <= MAX_UNROLL)
            with T.serial(0, count // unroll) as outer:
                for t in range(unroll):
                    add_step(pairs, first + outer * unroll + t, products.add_pairs)
            for total, pair in zip(chain(*totals), chain(*pairs)):
                total.set(products.widened(total.get(), pair.get()))

        if not products.widens_late:
            with T.serial(0, self.steps) as step:
                add_step(totals, step, products.add)
            return totals
        late = products.widen_after
        whole, rest = divmod(self.steps, late)
        with T.serial(0, whole) as outer:
            add_late(outer * late, late)
        if rest:
            add_late(whole * late, rest)
        return totals
