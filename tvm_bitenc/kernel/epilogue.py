"""What becomes of sums: integers, floats, or packed planes by comparing; `lines.py` has others."""

from __future__ import annotations

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ..te.conv_layer import ConvLayer
from ..te.float_steps import RESIDUAL, apply_step
from ..te.threshold import planes_of_reached
from .raw import Raw, thresholds_of
from .tir import constant, joined, load, reinterpret, splat, store, vector
from .window import by_block

MAX_COMPARED = 3  # Thresholds up to which comparing with each is cheapest.
MAX_COMPARED_AT_ALL = 7  # Where no line does.
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


class Floats(Integers):
    """Accumulators through float arithmetic, float32 NHWC; a residual may be added on the way."""

    out_dtype = "float32"

    @property
    def constants(self) -> list[np.ndarray]:
        """Those of accumulators, then those of the steps."""
        steps = [value for step in self.layer.steps for value in step.constants]
        padded = [by_block(value, self.layer, self.block).astype(np.float32) for value in steps]
        return [*super().constants, *padded]

    def finish(self, tile, p: int, parts: list) -> None:
        """Write the results of one pixel."""
        for channel, lanes, acc in self.accumulators(tile, p, parts):
            first, floats = tile.block * self.block + channel, vector("float32", lanes)
            left = iter(tile.finishing[-sum(len(s.constants) for s in self.layer.steps) or None :])
            value = acc
            for step in self.layer.steps:
                own = [load(next(left), first, lanes) for _ in step.constants]
                added = None
                if step.name == RESIDUAL:
                    added = self._read(tile, p, channel, lanes)
                value = T.Bind(apply_step(step.name, value, own, floats, added))
            self._write(tile, p, channel, lanes, value)

    def _read(self, tile, p: int, channel: int, lanes: int):
        """Load the residual of a vector of channels."""
        start, first, per_group = self._place(tile, p, channel)
        if per_group % self.block == 0:
            return load(tile.residual, start, lanes)
        gathered = T.alloc_buffer((lanes,), self.out_dtype)
        with T.serial(0, lanes) as lane, T.If(first + lane < per_group):
            with T.Then():
                T.buffer_store(gathered, tile.residual[start + lane], [lane])
            with T.Else():
                T.buffer_store(gathered, tirx.const(0, self.out_dtype), [lane])
        return load(gathered, 0, lanes)


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
