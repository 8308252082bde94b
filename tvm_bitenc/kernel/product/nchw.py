"""Products of bytes for images of few channels: a network's first layer.

The input is codes as the encoder leaves them, uint8 NCHW. Four neighbouring columns of one channel
fill the depth of a dot product, where `int8.py` takes four channels that an image doesn't have.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...layer import ConvLayer
from ..isa import Isa
from ..nest.geometry import by_block, padded_blocks, padded_width, prepared_rows
from ..nest.tile import Tile
from ..tir import Register, constant, load, reinterpret, splat, vector
from .int8 import Int8

ALIGNMENT = 64
MAX_CHANNELS = 8  # Beyond, channels fill the depth well enough.


class Planar(Int8):
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
            and list(geometry.act_coefficients) == [2**k for k in range(layer.act_bits)]
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

    def prepare(self, tile) -> None:
        """Copy the rows under the task's windows, padding around them."""
        layer, rows = self.layer, prepared_rows(self.layer, self.tile.rows)
        _, height, width, channels = layer.input_shape
        top, left, _, _ = layer.geometry.padding
        dtype = self.prepared[0]
        tile.prepared = T.alloc_buffer((channels * rows * self.row_size + ALIGNMENT,), dtype)
        if tile.needs_act_sum:
            tile.column_sums = T.alloc_buffer((self.row_size,), "int32")
        with T.grid(channels, rows) as (c, row):
            target = T.Bind((c * rows + row) * self.row_size)
            source_row = T.Bind(tile.first_row * layer.geometry.strides[0] + row - top)
            with T.serial(0, self.row_size) as column:
                T.buffer_store(tile.prepared, tirx.const(self.shift, dtype), [target + column])
            with T.If(tirx.all(source_row >= 0, source_row < height)), T.Then():
                source = T.Bind(((tile.image * channels + c) * height + source_row) * width)
                with T.serial(0, width) as column:
                    code = self._shifted(tile.source[source + column])
                    code = code if dtype == "uint8" else tirx.Cast(dtype, code)
                    T.buffer_store(tile.prepared, code, [target + left + column])

    def _shifted(self, code):
        """A code less `shift`, or what it was before."""
        return code ^ tirx.const(self.shift, "uint8") if self.shift else code

    def begin_row(self, tile) -> None:
        """Add up the codes of every column under the windows of an output row."""
        if not tile.needs_act_sum:
            return
        with T.serial(0, self.row_size) as column:
            T.buffer_store(tile.column_sums, 0, [column])
        with T.grid(self.channels, self.layer.kernel_size[0]) as (c, i):
            start = T.Bind(self._row(tile, c, i))
            with T.serial(0, self.row_size) as column:
                code = tirx.Cast("int32", self._shifted(tile.prepared[start + column]))
                T.buffer_store(tile.column_sums, tile.column_sums[column] + code, [column])

    def act_sum(self, tile, p: int):
        """U of the tile's p-th pixel."""
        first = (tile.column + p) * self.layer.geometry.strides[1]
        total = tile.column_sums[first]
        for j in range(1, self.layer.kernel_size[1]):
            total = total + tile.column_sums[first + j]
        return total

    def _row(self, tile, c, i):
        """Where the prepared row under kernel row i begins."""
        geometry, rows = self.layer.geometry, prepared_rows(self.layer, self.tile.rows)
        row = tile.row * geometry.strides[0] + i * geometry.dilation[0]
        return (c * rows + row) * self.row_size

    def sums(self, tile) -> list[list]:
        """Sums of every pixel of a tile, in vectors of int32."""
        totals = [[self._zero() for _ in range(self.tile.vectors)] for _ in range(tile.pixels)]
        with T.grid(self.channels, self.layer.kernel_size[0]) as (c, i):
            late = self.method == "bytes"
            pairs = [[self._zero("int16") for _ in pixel] for pixel in totals] if late else totals
            for step in range(self.steps):
                self._add_columns(tile, pairs, c, i, step)
                if late and ((step + 1) % self._widen_after == 0 or step + 1 == self.steps):
                    self._widen(totals, pairs)
        return [[T.Bind(total.get()) for total in pixel] for pixel in totals]

    def _widen(self, totals: list[list[Register]], pairs: list[list[Register]]) -> None:
        one = constant(1, "int16", self.lanes * 2)
        for pixel, narrow in zip(totals, pairs):
            for total, pair in zip(pixel, narrow):
                total.add(self.isa.multiply_add_words(pair.get(), one))
                pair.clear()

    def _add_columns(self, tile, totals, c, i, step: int) -> None:
        """Add the products of a few columns of one kernel row."""
        size, vectors = self.lanes * self.depth, self.tile.vectors
        kernel_h = self.layer.kernel_size[0]
        tap = ((tile.block * self.channels + c) * kernel_h + i) * self.steps + step
        weights = [
            T.Bind(self._weight(load(tile.constants[0], (tap * vectors + v) * size, size)))
            for v in range(vectors)
        ]
        start = T.Bind(self._row(tile, c, i) + step * self.depth)
        for p in range(tile.pixels):
            column = (tile.column + p) * self.layer.geometry.strides[1]
            four = load(tile.prepared, start + column, self.depth)
            act = T.Bind(
                reinterpret(
                    vector(self.prepared[0], size), splat(reinterpret("int32", four), self.lanes)
                )
            )
            for total, weight in zip(totals[p], weights):
                self._multiply(total, act, weight)


def row_bytes(layer: ConvLayer, isa: Isa) -> int:
    """Size of a prepared input row, all channels together."""
    return (padded_width(layer) + ALIGNMENT) * layer.input_shape[3] * 2
