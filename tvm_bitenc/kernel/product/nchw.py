"""Products of bytes for images of few channels: a network's first layer.

The input is codes as the encoder leaves them, uint8 NCHW. Four neighbouring columns of one channel
fill the depth of a dot product, where `int8.py` takes four channels that an image doesn't have.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...encoding import are_positional
from ...layer import ConvLayer
from ..contract import Prepared, Sums, TaskContext, TileContext
from ..isa import Isa
from ..nest.geometry import by_block, padded_blocks, padded_width, prepared_rows
from ..nest.tile import Tile
from ..tir import Expr, constant, load
from .int8 import Int8, Step, Totals

ALIGNMENT = 64
MAX_CHANNELS = 8  # Beyond, channels fill the depth well enough.


class Nchw(Int8[Isa]):
    """Product of bytes along the rows of an image.

    Parameters
    ----------
    layer : ConvLayer
    isa : Isa
    tile : Tile
    """

    source_dtype = "uint8"

    def __init__(self, layer: ConvLayer, isa: Isa, tile: Tile):
        super().__init__(layer, isa, tile)
        self.channels = layer.weight_codes.shape[1]
        self.steps = -(-layer.kernel_size[1] // self.depth)
        self.row_size = -(-(padded_width(layer) + self.depth) // ALIGNMENT) * ALIGNMENT

    @staticmethod
    def applies(layer: ConvLayer, isa: Isa) -> bool:
        """Whether the layer reads few channels, column by column."""
        geometry = layer.geometry
        return (
            geometry.groups == 1
            and geometry.dilation[1] == 1
            and layer.input_shape[3] <= MAX_CHANNELS
            and are_positional(geometry.act_coefficients)
            and Int8.applies(layer, isa)
        )

    @property
    def constants(self) -> list[np.ndarray]:
        """Weights, int8, shape (blocks, channels, kernel_h, steps, vectors, lanes, depth)."""
        values = self.weights.values.transpose(1, 2, 3, 0)  # c, i, j, o
        missing = self.steps * self.depth - values.shape[2]
        values = by_block(
            np.pad(values, [(0, 0)] * 2 + [(0, missing), (0, 0)]), self.layer, self.block
        )
        blocks = padded_blocks(self.layer, self.block)
        values = values.reshape(
            self.channels,
            self.layer.kernel_size[0],
            self.steps,
            self.depth,
            blocks,
            self.tile.vectors,
            self.lanes,
        )
        return [np.ascontiguousarray(values.transpose(4, 0, 1, 2, 5, 6, 3))]

    def prepare(self, task: TaskContext) -> Prepared:
        """Copy the rows under the task's windows, padding around them."""
        layer, rows = self.layer, prepared_rows(self.layer, self.tile.rows)
        _, height, width, channels = layer.input_shape
        top, left, _, _ = layer.geometry.padding
        dtype = self.prepared[0]
        buffer = T.alloc_buffer((channels * rows * self.row_size + ALIGNMENT,), dtype)
        sums = ColumnSums(layer, self.row_size) if self.terms.has_act_sum else None
        with T.grid(channels, rows) as (c, row):
            target = T.Bind((c * rows + row) * self.row_size)
            source_row = T.Bind(task.first_row * layer.geometry.strides[0] + row - top)
            with T.serial(0, self.row_size) as column:
                T.buffer_store(buffer, tirx.const(self.shift, dtype), [target + column])
            with T.If(tirx.all(source_row >= 0, source_row < height)), T.Then():
                source = T.Bind(((task.image * channels + c) * height + source_row) * width)
                with T.serial(0, width) as column:
                    code = self._shifted(task.memory.source[source + column])
                    code = code if dtype == "uint8" else tirx.Cast(dtype, code)
                    T.buffer_store(buffer, code, [target + left + column])
        return Prepared(buffer, codes=sums)

    def _shifted(self, code: Expr) -> Expr:
        """A code less `shift`, or what it was before."""
        return code ^ tirx.const(self.shift, "uint8") if self.shift else code

    def begin_row(self, prepared: Prepared, row: Expr) -> None:
        """Add up the codes of every column under the windows of an output row."""
        if not isinstance(prepared.codes, ColumnSums):
            return
        sums = prepared.codes
        sums.clear()
        with T.grid(self.channels, self.layer.kernel_size[0]) as (c, i):
            start = T.Bind(self._row(row, c, i))
            with T.serial(0, self.row_size) as column:
                code = self._shifted(prepared.buffer[start + column])
                sums.add(column, tirx.Cast("int32", code))

    def _row(self, row: Expr, c: Expr, i: Expr) -> Expr:
        """Where the prepared row under kernel row i begins."""
        geometry, rows = self.layer.geometry, prepared_rows(self.layer, self.tile.rows)
        source_row = row * geometry.strides[0] + i * geometry.dilation[0]
        return (c * rows + source_row) * self.row_size

    def sums(self, tile: TileContext) -> list[Sums]:
        """Sums of every pixel of a tile, in vectors of int32."""
        totals = [[self._zero() for _ in range(self.tile.vectors)] for _ in range(tile.pixels)]
        with T.grid(self.channels, self.layer.kernel_size[0]) as (c, i):
            late = self.method == "bytes"
            pairs = [[self._zero("int16") for _ in pixel] for pixel in totals] if late else totals
            for step in range(self.steps):
                self._add_columns(tile, pairs, (c, i, step))
                if late and ((step + 1) % self._widen_after == 0 or step + 1 == self.steps):
                    self._widen(totals, pairs)
        return [[T.Bind(total.get()) for total in pixel] for pixel in totals]

    def _widen(self, totals: Totals, pairs: Totals) -> None:
        one = constant(1, "int16", self.lanes * 2)
        for pixel, narrow in zip(totals, pairs):
            for total, pair in zip(pixel, narrow):
                total.add(self.isa.multiply_add_words(pair.get(), one))
                pair.clear()

    def _add_columns(self, tile: TileContext, totals: Totals, at: Step) -> None:
        """Add the products of a few columns of one kernel row of one channel."""
        (c, i, step), size, vectors = at, self.lanes * self.depth, self.tile.vectors
        kernel_h = self.layer.kernel_size[0]
        tap = ((tile.block * self.channels + c) * kernel_h + i) * self.steps + step
        own = tile.memory.product_constants[0]
        weights = [
            T.Bind(self._weight(load(own, (tap * vectors + v) * size, size)))
            for v in range(vectors)
        ]
        start = T.Bind(self._row(tile.row, c, i) + step * self.depth)
        for p in range(tile.pixels):
            column = (tile.column + p) * self.layer.geometry.strides[1]
            act = self._repeated(load(tile.prepared.buffer, start + column, self.depth))
            for total, weight in zip(totals[p], weights):
                self._multiply(total, act, weight)


class ColumnSums:
    """Sums of the codes of every column under the windows of an output row.

    Parameters
    ----------
    layer : ConvLayer
    size : int
        Columns of a prepared row.
    """

    def __init__(self, layer: ConvLayer, size: int):
        self.layer, self.size = layer, size
        self._sums = T.alloc_buffer((size,), "int32")

    def clear(self) -> None:
        """Begin a row."""
        with T.serial(0, self.size) as column:
            T.buffer_store(self._sums, 0, [column])

    def add(self, column: Expr, code: Expr) -> None:
        """Add a code to those of a column."""
        T.buffer_store(self._sums, self._sums[column] + code, [column])

    def under(self, _row: Expr, column: Expr) -> Expr:
        """Sum under the window of a pixel of the row at hand."""
        first = column * self.layer.geometry.strides[1]
        total = self._sums[first]
        for j in range(1, self.layer.kernel_size[1]):
            total = total + self._sums[first + j]
        return total
