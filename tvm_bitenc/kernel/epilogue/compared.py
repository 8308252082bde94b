"""Codes of few bits: sums are compared with every threshold."""

from __future__ import annotations

import numpy as np
from tvm.tirx.script import builder as T

from ...layer import ConvLayer
from ...te.threshold import planes_of_reached
from ..accumulator import Raw, thresholds_of
from ..nest.geometry import by_block
from ..tir import constant, load, reinterpret, splat
from .integers import as_int32

MAX_COMPARED_AT_ALL = 7  # Thresholds, where no line gives the codes.


class ComparedPlanes:
    """Codes of few bits: compare with every threshold, in terms of the sums themselves.

    A code counts the thresholds that are reached; they rise, so its bit b is the parity of those
    reached among every 2^b-th.
    """

    out_dtype = "uint64"

    def __init__(self, layer: ConvLayer, raw: Raw, block: int, dtype: str):
        self.layer, self.raw, self.block = layer, raw, block
        self.classes = raw.constant.shape[:2]
        self.bits, self.steps = layer.out_bits, len(layer.thresholds)
        self.dtype = "int32" if raw.has_act_sum else dtype
        low, high, factor = raw.low, raw.high, raw.factor_by_channel
        if raw.has_act_sum:
            low, high, factor = -(2**31), 2**31 - 2, 1
        self.thresholds, self.flip = thresholds_of(layer, raw, factor, low, high)

    @property
    def constants(self) -> list[np.ndarray]:
        """Thresholds, the inverted channels in bits, and the factors of U."""
        thresholds = by_block(self.thresholds, self.layer, self.block)
        # Lanes that are no channels must give code 0.
        real = by_block(np.ones(self.layer.out_channels, np.uint8), self.layer, self.block)
        thresholds = np.where(real == 1, thresholds, np.iinfo(self.dtype).max)
        flip = by_block(self.flip.astype(np.uint8), self.layer, self.block)
        found = [thresholds.astype(self.dtype), np.packbits(flip, bitorder="little")]
        if self.raw.has_act_sum:
            found.append(by_block(self.raw.act_factor, self.layer, self.block).astype(np.int32))
        return found

    def finish(self, tile, p: int, parts: list) -> None:
        """Write the planes of one pixel."""
        size = tile.blocks * self.block
        lanes = self.block // len(parts)
        vectors = [(i * lanes, lanes, part) for i, part in enumerate(parts)]
        if self.dtype == "int32":
            vectors = as_int32(parts, self.block)
        if self.raw.has_act_sum:
            vectors = [self._with_act_sum(tile, p, *v) for v in vectors]
        for channel, lanes, value in vectors:
            first = tile.block * self.block + channel
            reached = []
            for step in range(self.steps):
                start = (tile.border_class(p) * self.steps + step) * size + first
                is_reached = value >= load(tile.finishing[0], start, lanes)
                reached.append(T.Bind(reinterpret(f"uint{lanes}", is_reached)))
            self._write(tile, p, channel, lanes, reached, first)

    def _with_act_sum(self, tile, p: int, channel: int, lanes: int, value):
        factor = load(tile.finishing[2], tile.block * self.block + channel, lanes)
        total = value * constant(self.raw.factor, "int32", lanes)
        return channel, lanes, T.Bind(total + factor * splat(tile.act_sum(p), lanes))

    def _write(self, tile, p: int, channel: int, lanes: int, reached: list, first) -> None:
        flipped = None
        if self.flip.any():
            flips = tile.alias(tile.finishing[1], f"uint{lanes}")
            flipped = T.Bind(flips[first // lanes])
        for bit, plane in enumerate(planes_of_reached(reached)):
            if flipped is not None:
                plane = plane ^ flipped
            tile.store_plane(p, bit, channel, lanes, plane)
