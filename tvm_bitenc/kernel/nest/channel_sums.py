"""Sums in memory, which output channels read by the number of their row of weights.

Where channels share rows in order, what becomes of a sum is done while it is in a register. In any
other order the sums of a task are kept, and each output channel reads one of them::

    for every pixel of the task, and block of output channels:
        sums of their rows, lane by lane; the epilogue writes them out
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...layer import ConvLayer
from ..contract import Product, Sums, TileContext
from ..epilogue.accumulators import as_int32
from ..tir import Expr, store
from .geometry import by_block, padded_blocks

MAX_BLOCK = 64  # Output channels: bits of a word.
OCTET = 8


def block_of(channels: int) -> int:
    """Output channels that are written at a time: none but the last eight has lanes left over."""
    return int(np.gcd(-(-channels // OCTET) * OCTET, MAX_BLOCK))


@dataclass(frozen=True, eq=False)
class ChannelSums:
    """Sums of a task, int32, by pixel and row of weights.

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
    def size(self) -> int:
        """Sums of a pixel, those of lanes without a row included."""
        return padded_blocks(self.product.layer, self.product.block) * self.product.block

    @property
    def lanes(self) -> int:
        """Channels to a vector."""
        return min(max(self.product.isa.vector_bytes // 4, OCTET), self.block)

    @property
    def row_numbers(self) -> np.ndarray:
        """Number of the row of every output channel."""
        return by_block(self.layer.rows_and_signs[0], self.layer, self.block).astype(np.uint16)

    def allocate(self) -> tirx.Buffer:
        """Memory for the sums of a task."""
        pixels = self.product.tile.rows * self.layer.output_size[1]
        return T.alloc_buffer((pixels * self.size,), "int32")

    def keep(self, kept: tirx.Buffer, tile: TileContext, found: list[Sums]) -> None:
        """Write the sums of a tile, one block of rows."""
        for p, sums in enumerate(found):
            start = self._start(tile, p) + tile.block * self.product.block
            for part in as_int32(sums, self.product.block):
                store(kept, part.value, start + part.first, part.lanes)

    def of(self, kept: tirx.Buffer, numbers: tirx.Buffer, tile: TileContext) -> Sums:
        """Sums of a block of output channels of one pixel."""
        start, found = T.Bind(self._start(tile, 0)), []
        for first in range(0, self.block, self.lanes):
            rows = (numbers[tile.block * self.block + first + i] for i in range(self.lanes))
            lanes = [kept[start + tirx.Cast("int32", row)] for row in rows]
            found.append(T.Bind(tirx.Shuffle(lanes, list(range(self.lanes)))))
        return found

    def _start(self, tile: TileContext, p: int) -> Expr:
        """Where the sums of a pixel begin."""
        return (tile.row * self.layer.output_size[1] + tile.column + p) * self.size
