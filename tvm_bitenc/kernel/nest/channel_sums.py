"""Sums in memory, which output channels read by the number of their row of weights.

Where channels share rows in order, what becomes of a sum is done while it is in a register. In any
other order the sums of a task are kept, and each output channel reads one of them::

    for every pixel of the task, and block of output channels:
        sums of their rows, lane by lane; the epilogue writes them out

Where one instruction looks up words in two vectors, and sums fit words, so they are read instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...layer import ConvLayer
from ..contract import Product, Sums, TileContext
from ..epilogue.accumulators import as_int32
from ..tir import Expr, Vector, constant, load, store, vector
from .geometry import by_block, padded_blocks

MAX_BLOCK = 64  # Output channels: bits of a word.
OCTET = 8
MAX_TABLES = 4  # Pairs of vectors that words are looked up in.
MAX_WORD = 2**15 - 1


def block_of(channels: int) -> int:
    """Output channels that are written at a time: none but the last eight has lanes left over."""
    return int(np.gcd(-(-channels // OCTET) * OCTET, MAX_BLOCK))


@dataclass(frozen=True, eq=False)
class ChannelSums:
    """Sums of a task by pixel and row of weights.

    Parameters
    ----------
    layer : ConvLayer
        With `channel_rows`.
    product : Product
        Of its distinct rows.
    block : int
        Output channels that the epilogue takes at a time.
    """

    layer: ConvLayer
    product: Product
    block: int

    @property
    def are_looked_up(self) -> bool:
        """Whether an instruction reads a vector of them, and as words."""
        isa, terms = self.product.isa, self.product.terms
        fits = terms.low >= -MAX_WORD and terms.high < MAX_WORD  # A threshold may be one above.
        fits &= self._rows <= MAX_TABLES * isa.vector_bytes
        return isa.has_word_lookup and fits and self.block % (isa.vector_bytes // 2) == 0

    @property
    def dtype(self) -> str:
        """Type of the sums."""
        return "int16" if self.are_looked_up else "int32"

    @property
    def lanes(self) -> int:
        """Channels to a vector."""
        return min(max(self.product.isa.vector_bytes // 4, OCTET), self.block)

    @property
    def _rows(self) -> int:
        """Sums of a pixel, those of lanes without a row included."""
        return padded_blocks(self.product.layer, self.product.block) * self.product.block

    @property
    def size(self) -> int:
        """Elements that the sums of a pixel take: whole tables."""
        table = self.product.isa.vector_bytes if self.are_looked_up else 1
        return -(-self._rows // table) * table

    @property
    def row_numbers(self) -> np.ndarray:
        """Number of the row of every output channel."""
        return by_block(self.layer.rows_and_signs[0], self.layer, self.block).astype(np.uint16)

    def allocate(self) -> tirx.Buffer:
        """Memory for the sums of a task."""
        pixels = self.product.tile.rows * self.layer.output_size[1]
        return T.alloc_buffer((pixels * self.size,), self.dtype)

    def keep(self, kept: tirx.Buffer, tile: TileContext, found: list[Sums]) -> None:
        """Write the sums of a tile, one block of rows."""
        for p, sums in enumerate(found):
            start = self._start(tile, p) + tile.block * self.product.block
            for part in as_int32(sums, self.product.block):
                value = tirx.Cast(vector(self.dtype, part.lanes), part.value)
                store(kept, value, start + part.first, part.lanes)

    def of(self, kept: tirx.Buffer, numbers: tirx.Buffer, tile: TileContext) -> Sums:
        """Sums of a block of output channels of one pixel."""
        start, first = T.Bind(self._start(tile, 0)), tile.block * self.block
        if self.are_looked_up:
            return self._looked_up(kept, numbers, start, first)
        found = []
        for part in range(0, self.block, self.lanes):
            rows = (numbers[first + part + i] for i in range(self.lanes))
            lanes = [kept[start + tirx.Cast("int32", row)] for row in rows]
            found.append(T.Bind(tirx.Shuffle(lanes, list(range(self.lanes)))))
        return found

    def _looked_up(self, kept: tirx.Buffer, numbers: tirx.Buffer, start: Expr, first: Expr) -> Sums:
        """Sums of a block from tables of two vectors, half a vector each."""
        words, table, found = 2 * self.lanes, 4 * self.lanes, list[Vector]()
        for part in range(0, self.block, words):
            index = T.Bind(load(numbers, first + part, words))
            chosen: Vector | None = None
            for begin in range(0, self.size, table):
                halves = [load(kept, start + begin + half, words) for half in (0, words)]
                there = T.Bind(self.product.isa.lookup_words(halves, index))
                is_there = index >= constant(begin, "uint16", words)
                chosen = there if chosen is None else tirx.Select(is_there, there, chosen)
            chosen = T.Bind(chosen)
            for half in (0, self.lanes):
                lanes = list(range(half, half + self.lanes))
                found.append(T.Bind(tirx.Shuffle([chosen], lanes)))
        return found

    def _start(self, tile: TileContext, p: int) -> Expr:
        """Where the sums of a pixel begin."""
        return (tile.row * self.layer.output_size[1] + tile.column + p) * self.size
