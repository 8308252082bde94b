"""Planes of the output, some neighbouring channels at a time."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script import builder as T

from ...encoding import WORD_BITS
from ...layer import ConvLayer
from ..contract import TileContext
from ..tir import Expr


@dataclass(frozen=True, eq=False)
class PlaneStore:
    """Where bits of codes go.

    Parameters
    ----------
    layer : ConvLayer
    block : int
    """

    layer: ConvLayer
    block: int

    def put(
        self, tile: TileContext, p: int, bit: int, channel: int, lanes: int, value: Expr
    ) -> None:
        """Write one bit of neighbouring channels of the p-th pixel, as one integer.

        Parameters
        ----------
        tile : TileContext
        p : int
        bit : int
        channel : int
            The first one's number in its block.
        lanes : int
            Channels, as many as an integer has bits.
        value : expression
        """
        layer, groups = self.layer, self.layer.geometry.groups
        words = -(-layer.out_channels // WORD_BITS)
        plane = tile.out_pixel(p) * layer.out_bits + bit
        first = tile.group * (layer.out_channels // groups)
        first = first + tile.block_in_group * self.block + channel
        target = tile.memory.out_views[f"uint{lanes}"]
        index = plane * (words * WORD_BITS // lanes) + first // lanes
        T.buffer_store(target, value, [index])
        padded = tile.blocks // groups * self.block
        is_last = channel + lanes >= self.block
        if groups == 1 and is_last and padded < words * WORD_BITS:
            octets = tile.memory.out_views["uint8"]
            with T.serial(0, (words * WORD_BITS - padded) // 8) as rest:
                place = plane * (words * 8) + padded // 8 + rest
                T.buffer_store(octets, tirx.const(0, "uint8"), [place])
