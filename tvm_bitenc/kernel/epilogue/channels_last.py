"""Vectors of channels in tensors NHWC, whose last vector may be wider than the channels left."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script import builder as T

from ...layer import ConvLayer
from ..contract import TileContext
from ..tir import Expr, load, store, store_some
from .accumulators import Channels


@dataclass(frozen=True, eq=False)
class ChannelsLast:
    """Places of vectors in a tensor of the output's shape.

    Parameters
    ----------
    layer : ConvLayer
    block : int
    dtype : str
    """

    layer: ConvLayer
    block: int
    dtype: str

    def write(self, tile: TileContext, p: int, part: Channels) -> None:
        """Store a vector in the output, or those of its lanes that are channels."""
        start, first, per_group = self._place(tile, p, part.first)
        if per_group % self.block == 0:
            store(tile.memory.out, part.value, start, part.lanes)
            return
        with T.If(first + part.lanes <= per_group), T.Then():
            store(tile.memory.out, part.value, start, part.lanes)
        rest = per_group % part.lanes
        if rest:
            with T.If(first == per_group - rest), T.Then():
                store_some(tile.memory.out, part.value, start, rest, part.lanes)

    def read(self, source: tirx.Buffer, tile: TileContext, p: int, part: Channels) -> Expr:
        """Load the vector of a tensor that lies where `part` goes; 0 beyond the channels."""
        start, first, per_group = self._place(tile, p, part.first)
        if per_group % self.block == 0:
            return load(source, start, part.lanes)
        gathered = T.alloc_buffer((part.lanes,), self.dtype)
        with T.serial(0, part.lanes) as lane, T.If(first + lane < per_group):
            with T.Then():
                T.buffer_store(gathered, source[start + lane], [lane])
            with T.Else():
                T.buffer_store(gathered, tirx.const(0, self.dtype), [lane])
        return load(gathered, 0, part.lanes)

    def _place(self, tile: TileContext, p: int, channel: int) -> tuple[Expr, Expr, int]:
        """Where a vector lies in the output; its first channel in the group; channels of that."""
        per_group = self.layer.out_channels // self.layer.geometry.groups
        first = tile.block_in_group * self.block + channel
        start = tile.out_pixel(p) * self.layer.out_channels + tile.group * per_group + first
        return start, first, per_group
