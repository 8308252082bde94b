"""Products of two matrices of codes, both of them made at run time.

::

    for every pair of matrices, and some rows of the left one:                     # in parallel
        the left codes as they are, or a copy in the form that instructions take, and its sums
        for some vectors of columns:
            a panel: all right codes of these columns, as instructions take them, and their sums
            for some rows: sums of products in registers; accumulators are written

Columns lie in 32-bit lanes, a few terms deep; see `byte_products.py` for how these are summed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from .byte_form import ByteForm
from .byte_products import ByteProducts
from .isa import Isa
from .kernel import Kernel
from .nest.memory import elements_of
from .nest.tile import divisors
from .tir import (
    Expr,
    Register,
    Vector,
    constant,
    flat,
    imported,
    load,
    load_some,
    reinterpret,
    splat,
    store,
    store_some,
    vector,
)

MAX_UNROLL = 4

Totals: TypeAlias = "list[list[Register]]"  # By row, and vector of columns.


@dataclass(frozen=True)
class MatmulTile:
    """How much of a product is done at once.

    Parameters
    ----------
    rows, vectors : int
        Rows, and vectors of columns, whose sums lie in registers.
    parts : int
        Parts of the rows that run in parallel.
    """

    rows: int
    vectors: int
    parts: int = 1


@dataclass(frozen=True)
class MatmulSize:
    """Sizes of the matrices: (rows, terms) by (terms, columns)."""

    rows: int
    terms: int
    columns: int


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
        right = T.arg("right", T.buffer((batch, size.terms, size.columns), "uint8"))
        out = T.arg("out", T.buffer((batch, size.rows, size.columns), "int32"))
        with imported(isa.functions):
            rows = [flat(x, elements_of(x), str(x.dtype)) for x in (left, right, out)]
            _Matmul(size, forms, isa, tile, rows).write(left.shape[0], parallel)
    return Kernel(builder.get(), [])


@dataclass(frozen=True, eq=False)
class _Task:
    """What is bound where a task begins.

    Parameters
    ----------
    image : expression
        Number of the product in the batch.
    first_row : expression
    left : buffer
        Codes as instructions take them.
    start, stride : expression, int
        Where the task's first row begins there, and how far rows are apart.
    sums : buffer, optional
        What each row adds to its accumulators, uint32; None where that is nothing.
    """

    image: Expr
    first_row: Expr
    left: tirx.Buffer
    start: Expr
    stride: int
    sums: tirx.Buffer | None


@dataclass(frozen=True, eq=False)
class _Panel:
    """Right codes of some columns.

    Parameters
    ----------
    buffer : buffer
        Elements (steps, vectors, lanes, depth).
    sums : buffer, optional
        What each column adds to its accumulators, uint32; None where that is nothing.
    first : expression
        Number of the first column.
    columns, vectors : int
    """

    buffer: tirx.Buffer
    sums: tirx.Buffer | None
    first: Expr
    columns: int
    vectors: int

    def lanes_of(self, number: int, lanes: int) -> int:
        """Lanes of a vector of `lanes` that hold a column."""
        return min(self.columns - number * lanes, lanes)


class _Matmul:
    """The loops of a product.

    Parameters
    ----------
    size, forms, isa, tile
        See `matmul_kernel`.
    arguments : (buffer, buffer, buffer)
        Left and right codes, and accumulators, each as one row.
    """

    def __init__(
        self,
        size: MatmulSize,
        forms: tuple[ByteForm, ByteForm],
        isa: Isa,
        tile: MatmulTile,
        arguments: list[tirx.Buffer],
    ):
        self.size, self.tile = size, tile
        self.left_form, self.right_form = forms
        self.left, self.right, self.out = arguments
        self.products = ByteProducts(*forms, isa)
        self.lanes, self.depth = self.products.lanes, self.products.depth
        self.width = self.products.width
        self.steps = -(-size.terms // self.depth)
        self.tiles, self.last_rows = divmod(size.rows, tile.rows)
        self.tiles_to_part = -(-self.tiles // tile.parts)
        self.parts = -(-self.tiles // self.tiles_to_part)

    def write(self, batch: Expr, parallel: bool) -> None:
        """Write the loops."""
        parts = self.parts
        loop = T.parallel if parallel else T.serial
        with loop(0, batch * parts) as number:
            image, part = (number // parts, number % parts) if parts > 1 else (number, 0)
            task = self._prepare_left(image, part)
            for first, columns, count in self._blocks():
                with T.serial(0, count) as block:
                    panel = self._prepare_right(task, first + block * columns, columns)
                    self._write_rows(task, panel, part)

    def _blocks(self) -> list[tuple[int, int, int]]:
        """First column, columns, and number of neighbouring blocks of as many columns."""
        columns = self.tile.vectors * self.lanes
        whole, rest = divmod(self.size.columns, columns)
        found = [(0, columns, whole), (whole * columns, rest, 1)]
        return [block for block in found if block[1] and block[2]]

    # Left codes.

    def _prepare_left(self, image: Expr, part: Expr) -> _Task:
        """Copy the rows of a part where they can't be multiplied as they are."""
        size, parts = self.size, self.parts
        first_row = T.Bind(part * (self.tiles_to_part * self.tile.rows)) if parts > 1 else 0
        start = T.Bind((image * size.rows + first_row) * size.terms)
        has_sums = self.right_form.rest != 0
        if self.products.takes_left_codes and size.terms % self.depth == 0 and not has_sums:
            return _Task(image, first_row, self.left, start, size.terms, None)
        rows = self.tiles_to_part * self.tile.rows + self.last_rows
        stride = -(-size.terms // self.width) * self.width
        copy = T.alloc_buffer((rows * stride,), self.products.left_dtype)
        sums = T.alloc_buffer((rows,), "uint32") if has_sums else None
        with T.serial(0, rows) as row, _only_if(parts > 1, first_row + row < size.rows):
            total = self._copy_row(start + row * size.terms, copy, row * stride)
            if sums is not None:
                factor = self.left_form.factor * self.right_form.rest
                T.buffer_store(sums, _sum_of_lanes(total, self.lanes) * _wrapped(factor), [row])
        return _Task(image, first_row, copy, 0, stride, sums)

    def _copy_row(self, start: Expr, copy: tirx.Buffer, to: Expr) -> Vector:
        """Write a row as instructions take it, and zeros behind it; return its sums by lane."""
        products = self.products
        total = products.zero()

        def copy_vector(codes: Vector, at: Expr, count: int) -> None:
            values = products.left_of(codes, range(count))
            store(copy, values, to + at, self.width)
            total.set(products.sum(total.get(), values, products.right_ones))

        whole, rest = divmod(self.size.terms, self.width)
        with T.serial(0, whole) as chunk:
            at = chunk * self.width
            copy_vector(load(self.left, start + at, self.width), at, self.width)
        if rest:
            at = whole * self.width
            copy_vector(load_some(self.left, start + at, rest, self.width), at, rest)
        return T.Bind(_wrapping(total.get(), self.lanes))

    # Right codes.

    def _prepare_right(self, task: _Task, first: Expr, columns: int) -> _Panel:
        """Lay some columns out, a vector of every step after another."""
        size, products, vectors = self.size, self.products, -(-columns // self.lanes)
        buffer = T.alloc_buffer((self.steps * vectors * self.width,), products.right_dtype)
        sums = T.alloc_buffer((vectors * self.lanes,), "uint32") if self.left_form.rest else None
        panel = _Panel(buffer, sums, first, columns, vectors)
        totals = [products.zero() for _ in range(vectors)]

        def prepare(step: Expr, terms: int) -> None:
            row = (task.image * size.terms + step * self.depth) * size.columns + first
            for v, total in enumerate(totals):
                there = panel.lanes_of(v, self.lanes)
                values = self._side_by_side(row + v * self.lanes, terms, there)
                store(buffer, values, (step * vectors + v) * self.width, self.width)
                total.set(products.sum(total.get(), products.left_ones, values))

        whole, rest = divmod(size.terms, self.depth)
        with T.serial(0, whole) as step:
            prepare(step, self.depth)
        if rest:
            prepare(whole, rest)
        if sums is not None:
            left, right = self.left_form, self.right_form
            factor = splat(_wrapped(left.rest * right.factor), self.lanes)
            rest_of_all = splat(_wrapped(size.terms * left.rest * right.rest), self.lanes)
            for v, total in enumerate(totals):
                value = _wrapping(total.get(), self.lanes) * factor + rest_of_all
                store(sums, value, v * self.lanes, self.lanes)
        return panel

    def _side_by_side(self, start: Expr, terms: int, columns: int) -> Vector:
        """Codes of a few terms under a vector of columns, those of a column side by side."""
        rows = [
            load_some(self.right, start + term * self.size.columns, columns, self.lanes)
            for term in range(terms)
        ]
        rows += [constant(0, "uint8", self.lanes)] * (self.depth - terms)
        order = [i % self.depth * self.lanes + i // self.depth for i in range(self.width)]
        there = [i for i in range(self.width) if i % self.depth < terms]
        return self.products.right_of(T.Bind(tirx.Shuffle(rows, order)), there)

    # Sums.

    def _write_rows(self, task: _Task, panel: _Panel, part: Expr) -> None:
        """Write the accumulators of a task's rows under a panel."""
        rows, parts, count = self.tile.rows, self.parts, self.tiles_to_part
        with (
            T.serial(0, count) as tile,
            _only_if(count * parts > self.tiles, part * count + tile < self.tiles),
        ):
            self._write_tile(task, panel, tile * rows, rows)
        if self.last_rows:
            with _only_if(parts > 1, part == parts - 1):
                row = T.Bind(self.tiles * rows - task.first_row)
                self._write_tile(task, panel, row, self.last_rows)

    def _write_tile(self, task: _Task, panel: _Panel, row: Expr, rows: int) -> None:
        """Write the accumulators of some rows."""
        sums = self._sums(task, panel, T.Bind(task.start + row * task.stride), rows)
        factor = splat(_wrapped(self.left_form.factor * self.right_form.factor), self.lanes)
        for p, of_row in enumerate(sums):
            place = (task.image * self.size.rows + task.first_row + row + p) * self.size.columns
            for v, total in enumerate(of_row):
                value = _wrapping(total.get(), self.lanes) * factor
                if panel.sums is not None:
                    value = value + load(panel.sums, v * self.lanes, self.lanes)
                if task.sums is not None:
                    value = value + splat(task.sums[row + p], self.lanes)
                value = reinterpret(vector("int32", self.lanes), value)
                start, there = place + panel.first + v * self.lanes, panel.lanes_of(v, self.lanes)
                store_some(self.out, value, start, there, self.lanes)

    def _sums(self, task: _Task, panel: _Panel, start: Expr, rows: int) -> Totals:
        """Sums of products of all terms, of some rows whose left codes begin at `start`."""
        products = self.products
        totals = [[products.zero() for _ in range(panel.vectors)] for _ in range(rows)]

        def add(total: Register, left: Vector, right: Vector) -> None:
            total.set(products.sum(total.get(), left, right))

        def add_late(first: Expr, count: int) -> None:
            pairs = [[products.zero_pairs() for _ in of_row] for of_row in totals]
            unroll = max(d for d in divisors(count) if d <= MAX_UNROLL)
            with T.serial(0, count // unroll) as outer:
                for t in range(unroll):
                    step = first + outer * unroll + t
                    self._for_each(task, panel, start, step, pairs, products.add_pairs)
            for total, pair in zip(chain(*totals), chain(*pairs)):
                total.set(products.widened(total.get(), pair.get()))

        if not products.widens_late:
            with T.serial(0, self.steps) as step:
                self._for_each(task, panel, start, step, totals, add)
            return totals
        whole, rest = divmod(self.steps, products.widen_after)
        with T.serial(0, whole) as outer:
            add_late(outer * products.widen_after, products.widen_after)
        if rest:
            add_late(whole * products.widen_after, rest)
        return totals

    def _for_each(
        self,
        task: _Task,
        panel: _Panel,
        start: Expr,
        step: Expr,
        totals: Totals,
        add: Callable[[Register, Vector, Vector], None],
    ) -> None:
        """Call `add` for all sums, with the factors of one step."""
        base = step * (panel.vectors * self.width)
        factors = [
            T.Bind(load(panel.buffer, base + v * self.width, self.width))
            for v in range(panel.vectors)
        ]
        for p, of_row in enumerate(totals):
            codes = load(task.left, start + p * task.stride + step * self.depth, self.depth)
            repeated = splat(reinterpret("int32", codes), self.lanes)
            left = T.Bind(reinterpret(vector(self.products.left_dtype, self.width), repeated))
            for total, factor in zip(of_row, factors):
                add(total, left, factor)


# Accumulators fit 32 bits, what leads to them needn't: unsigned integers may overflow.


def _wrapped(value: int) -> Vector:
    return tirx.const(value % 2**32, "uint32")


def _wrapping(value: Vector, lanes: int) -> Vector:
    return reinterpret(vector("uint32", lanes), value)


def _sum_of_lanes(value: Vector, lanes: int) -> Vector:
    while lanes > 1:
        lanes //= 2
        low, high = (tirx.Shuffle([value], list(range(i, i + lanes))) for i in (0, lanes))
        value = T.Bind(T.Bind(low) + T.Bind(high))
    return value


@contextmanager
def _only_if(is_asked: bool, condition: Expr) -> Iterator[None]:
    """Write what follows under a condition, where there is any."""
    if not is_asked:
        yield
        return
    with T.If(condition), T.Then():
        yield
