"""Accumulators as they are, int32."""

from __future__ import annotations

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...layer import ConvLayer
from ..accumulator import Raw
from ..nest.geometry import by_block
from ..tir import constant, joined, load, splat, store, vector

INT32_LANES = 16


class Integers:
    """Accumulators as they are, int32 NHWC."""

    out_dtype = "int32"

    def __init__(self, layer: ConvLayer, raw: Raw, block: int):
        self.layer, self.raw, self.block = layer, raw, block
        self.classes = raw.constant.shape[:2]

    @property
    def constants(self) -> list[np.ndarray]:
        """Constant part by border class, and the factors of U."""
        factors = [self.raw.act_factor] if self.raw.has_act_sum else []
        return [
            by_block(values, self.layer, self.block).astype(np.int32)
            for values in (self.raw.constant, *factors)
        ]

    def finish(self, tile, p: int, parts: list) -> None:
        """Write the accumulators of one pixel."""
        for channel, lanes, acc in self.accumulators(tile, p, parts):
            self._write(tile, p, channel, lanes, acc)

    def accumulators(self, tile, p: int, parts: list) -> list[tuple]:
        """(first channel of the block, lanes, int32 vector) for the whole block."""
        found = []
        for channel, lanes, value in as_int32(parts, self.block):
            padded = tile.blocks * self.block
            first = tile.block * self.block + channel
            acc = value * constant(self.raw.factor, "int32", lanes)
            acc = acc + load(tile.finishing[0], tile.border_class(p) * padded + first, lanes)
            if self.raw.has_act_sum:
                acc = acc + self._act_term(tile, p, first, lanes)
            found.append((channel, lanes, T.Bind(acc)))
        return found

    def _act_term(self, tile, p: int, first, lanes: int):
        """Factors of U times U; one product for all channels where their factors agree."""
        factors = np.unique(self.raw.act_factor)
        if len(factors) == 1:
            return splat(T.Bind(tile.act_sum(p) * int(factors[0])), lanes)
        return load(tile.finishing[1], first, lanes) * splat(tile.act_sum(p), lanes)

    def _place(self, tile, p: int, channel: int) -> tuple:
        """Where a vector lies in the output; its first channel in the group; channels of that."""
        per_group = self.layer.out_channels // self.layer.geometry.groups
        first = tile.block_in_group * self.block + channel
        start = tile.out_pixel(p) * self.layer.out_channels + tile.group * per_group + first
        return start, first, per_group

    def _write(self, tile, p: int, channel: int, lanes: int, acc) -> None:
        """Store a vector, or those of its lanes that are channels."""
        start, first, per_group = self._place(tile, p, channel)
        if per_group % self.block == 0:
            store(tile.out, acc, start, lanes)
            return
        spill = T.alloc_buffer((lanes,), self.out_dtype)
        store(spill, acc, 0, lanes)
        with T.serial(0, lanes) as lane, T.If(first + lane < per_group), T.Then():
            T.buffer_store(tile.out, spill[lane], [start + lane])


def as_int32(parts: list, block: int) -> list[tuple]:
    """Convert sums to int32, and join short vectors to such of up to 16 lanes."""
    lanes, dtype = block // len(parts), str(parts[0].ty.dtype).partition("x")[0]
    join = max(min(INT32_LANES // lanes, len(parts)), 1)
    join = 1 << (join.bit_length() - 1)
    while len(parts) % join:
        join //= 2
    found = []
    for i in range(0, len(parts), join):
        value = joined(dtype, lanes, parts[i : i + join])
        if dtype != "int32":
            value = tirx.Cast(vector("int32", lanes * join), value)
        found.append((i * lanes, lanes * join, T.Bind(value)))
    return found
