r"""Sums of branches where a vector's bits are counted byte by byte, in one instruction.

Bytes add up counts until they are full; then all vectors of eight output channels are added up
pair by pair, which leaves one vector of sixteen bits a channel. Two neighbouring words of a channel
fill a 128-bit vector; where the words are odd in number, two output channels do.

Two by two planes take three counts, see `counts.py`, of bits that six instructions make and count:
:math:`\lnot y` is stored as one more plane of the weights. What the sums of one side alone come to
is an offset by output channel and by pixel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...layer import ConvLayer
from ..isa import Isa
from ..nest.pixel_words import PixelWords
from ..nest.tile import Tile, divisors
from ..tir import load, splat, store
from .branch_cover import OffsetSquare, Single, Square, counts_of
from .widening_counter import ByteCounter, neighbours_added
from .xnor import MAX_BYTE_COUNTS, OCTET, Xnor

PAIR = 2  # Words of a vector.
AT_ONCE = 4  # Vectors of channels: as many as give one vector of sums.
MAX_UNROLL = 12  # Vectors of weights written out one after another, for each channel.
MAX_WORD_SUM = 65534  # Thresholds go one beyond.


class ByteXnor(Xnor):
    """Product of packed planes, as they are, for vectors of 128 bits.

    Parameters
    ----------
    layer : ConvLayer
    isa : Neon
    tile : Tile
    """

    def __init__(self, layer: ConvLayer, isa: Isa, tile: Tile):
        super().__init__(layer, isa, tile)
        self.counts = byte_counts(layer)
        self.per_step = counts_by_factor(self.counts)
        self.depth = PAIR // self.lanes
        self.steps = layer.words // self.depth  # Vectors under a tap.
        self.squares = {c.weight: type(c) for c in self.counts if isinstance(c, Square)}
        self.columns = layer.weight_bits + len(self.squares)
        self.at_once = min(AT_ONCE, tile.vectors)  # Others would need more registers.
        self.limit = MAX_BYTE_COUNTS // max(self.per_step.values())  # Steps.

    @staticmethod
    def applies(layer: ConvLayer, isa: Isa) -> bool:
        """Whether every group of channels starts a word, and a byte holds the counts of a step."""
        most = max(counts_by_factor(byte_counts(layer)).values())
        return Xnor.applies(layer, isa) and most <= MAX_BYTE_COUNTS

    @staticmethod
    def lanes_of(layer: ConvLayer, _isa: Isa) -> int:
        """Output channels to a vector."""
        return 1 if layer.words % PAIR == 0 else PAIR

    @property
    def is_narrow(self) -> bool:
        """Whether whole sums fit 16 bits."""
        return self.raw.high <= MAX_WORD_SUM

    @property
    def sum_dtype(self) -> str:
        """Type of the sums."""
        return "uint16" if self.is_narrow else "int32"

    @property
    def constants(self) -> list[np.ndarray]:
        """Weights (group, block, part, kernel_h, kernel_w, step, channel, plane, word) and offsets.

        Offsets are there where squares need them, by output channel.
        """
        (weights,) = super().constants
        outer = weights.shape[:-3]
        added = [self._added_plane(weights, m, kind) for m, kind in self.squares.items()]
        planes = np.stack([*np.moveaxis(weights, -2, 0), *added], axis=-2)
        at_once = self.at_once * self.lanes
        planes = planes.reshape(*outer, self.steps, self.depth, self.columns, -1, at_once)
        planes = np.moveaxis(np.moveaxis(planes, -2, 2), -3, -1)
        # Were the number of other rows known, LLVM would write them out, where paired loads don't
        # reach.
        rows = np.array([self.layer.kernel_size[0] - 1], np.int32)
        offsets = [self._offsets(weights)] if self.needs_offset else []
        return [np.ascontiguousarray(planes), rows, *offsets]

    @staticmethod
    def _added_plane(weights: np.ndarray, plane: int, kind: type) -> np.ndarray:
        """Where two planes differ; for the other kind of square, where they agree."""
        differing = weights[..., plane, :] ^ weights[..., plane + 1, :]
        return ~differing if kind is OffsetSquare else differing

    @property
    def needs_offset(self) -> bool:
        """Whether sums of one side alone are part of the sums."""
        return OffsetSquare in self.squares.values()

    def _offsets(self, weights: np.ndarray) -> np.ndarray:
        """Weighted bits in which planes differ, by output channel: C y summed up."""
        total = np.zeros((*weights.shape[:2], weights.shape[-1]), np.int64)
        for count in self._offset_squares:
            differing = weights[..., count.weight, :] ^ weights[..., count.weight + 1, :]
            total += count.mixed // 2 * np.bitwise_count(differing).sum(axis=(2, 3, 4), dtype=int)
        return total.reshape(-1).astype(self.sum_dtype)

    @property
    def _offset_squares(self) -> list[OffsetSquare]:
        return [count for count in self.counts if isinstance(count, OffsetSquare)]

    def prepare_pixel(self, pixel: PixelWords, target, base) -> None:
        """Copy the words of a pixel: those that a step reads lie together, plane by plane."""
        bits, depth = self.layer.act_bits, self.depth
        for word in range(0, self.words, depth):
            for k in range(bits):
                value = pixel.neighbours(k * self.words + word, depth)
                store(target, value, base + (word * bits + k * depth), depth)

    def pixel_offset(self, words: PixelWords):
        """Weighted bits in which the planes of a pixel differ: C x summed up."""
        total = tirx.const(0, "int32")
        if words.source is None:
            return total
        for k in {count.act for count in self._offset_squares}:
            factor = sum(count.mixed // 2 for count in self._offset_squares if count.act == k)
            for word in range(self.words):
                differing = words.word(k, word) ^ words.word(k + 1, word)
                total = total + tirx.Cast("int32", tirx.popcount(differing)) * factor
        return total

    def sums(self, tile) -> list[list]:
        """Sums of every pixel of a tile, in vectors of eight channels."""
        parts = [
            self._sums_of_part(tile, range(v, v + self.at_once))
            for v in range(0, self.tile.vectors, self.at_once)
        ]
        found = []
        for p, values in enumerate(zip(*parts)):
            while len(values) > self.block // OCTET:
                values = neighbours_added(self.isa, values)
            found.append([self._with_offset(tile, p, v, value) for v, value in enumerate(values)])
        return found

    def _with_offset(self, tile, p: int, octet: int, value):
        if not self.needs_offset:
            return value
        of_channels = load(tile.constants[2], tile.block * self.block + octet * OCTET, OCTET)
        of_pixel = tirx.Cast(self.sum_dtype, tile.offset(p))
        return T.Bind(value + (of_channels - splat(of_pixel, OCTET)))

    def _sums_of_part(self, tile, vectors: range) -> list:
        """Sums of some vectors of channels under every pixel: one vector of eight lanes each."""
        (kernel_h, kernel_w), steps = self.layer.kernel_size, self.steps
        row, whole = kernel_w * steps, kernel_h * kernel_w * steps
        if whole <= self.limit:
            counters = self._counters(tile, vectors, whole)
            self._count_row(tile, counters, vectors, 0)  # The first counts: nothing is cleared.
            with T.serial(0, tile.constants[1][0]) as i:
                self._count_row(tile, counters, vectors, i + 1)
        elif row <= self.limit:
            counters = self._counters(tile, vectors, row)
            _settle(counters)
            with T.serial(0, kernel_h) as i, _flushed(counters):
                self._count_row(tile, counters, vectors, i)
        else:
            late = max(d for d in divisors(steps) if d <= self.limit)
            counters = self._counters(tile, vectors, late)
            _settle(counters)
            with T.grid(kernel_h, kernel_w, steps // late) as (i, j, part), _flushed(counters):
                self._count_steps(tile, counters, vectors, i, j, part * late, late)
        return [counter.finish() for counter in counters]

    def _counters(self, tile, vectors: range, between: int) -> list[ByteCounter]:
        whole = self.layer.kernel_size[0] * self.layer.kernel_size[1] * self.steps
        return [
            ByteCounter(self.isa, vectors, self.per_step, whole, between, self.sum_dtype)
            for _ in range(tile.pixels)
        ]

    def _count_row(self, tile, counters, vectors: range, i) -> None:
        """Count under a row of taps."""
        kernel_w = self.layer.kernel_size[1]
        if kernel_w * self.steps <= (self.tile.unroll or MAX_UNROLL):
            # Neighbouring taps read the same pixels: each is loaded once.
            for step in range(self.steps):
                for j in range(kernel_w):
                    self._count_step(tile, counters, vectors, i, j, step)
        else:
            _settle(counters)
            with T.serial(0, kernel_w) as j:
                self._count_steps(tile, counters, vectors, i, j, 0, self.steps)

    def _count_steps(self, tile, counters, vectors: range, i, j, first, count: int) -> None:
        """Count neighbouring vectors under one tap."""
        step = max(d for d in divisors(count) if d <= (self.tile.unroll or MAX_UNROLL))
        if step < count:
            _settle(counters)
        with T.serial(0, count // step) as outer:
            for t in range(step):
                self._count_step(tile, counters, vectors, i, j, first + outer * step + t)

    def _count_step(self, tile, counters, vectors: range, i, j, step) -> None:
        """Count one vector of every branch under one tap."""
        (kernel_h, kernel_w), n = self.layer.kernel_size, PAIR
        part = tile.block * (self.tile.vectors // self.at_once) + vectors.start // self.at_once
        tap = ((part * kernel_h + i) * kernel_w + j) * self.steps + step
        base = T.Bind(tap * (self.columns * self.at_once * n))
        acts = [self._acts(tile, tile.address(i, j, p), step) for p in range(tile.pixels)]
        squares = {c.act for c in self.counts if isinstance(c, Square)}
        differing = [{k: T.Bind(a[k] ^ a[k + 1]) for k in squares} for a in acts]
        # Weights take part one vector after another: registers hold the pixels.
        for place, v in enumerate(vectors):
            starts = [base + (m * self.at_once + place) * n for m in range(self.columns)]
            planes = [T.Bind(load(tile.constants[0], start, n)) for start in starts]
            for p, counter in enumerate(counters):
                for count in self.counts:
                    for factor, bits in self._bits(count, acts[p], differing[p], planes):
                        counter.add(v, factor, bits)

    def _acts(self, tile, pixel, step) -> list:
        """Planes of a pixel, one vector of each."""
        bits, depth = self.layer.act_bits, self.depth
        word = tile.group * self.layer.words + step * depth
        if tile.needs_copy:
            starts = [pixel + word * bits + k * depth for k in range(bits)]
        else:
            starts = [pixel + k * self.words + word for k in range(bits)]
        if depth == PAIR:
            return [T.Bind(load(tile.prepared, start, PAIR)) for start in starts]
        return [T.Bind(splat(tile.prepared[start], PAIR)) for start in starts]

    def _bits(self, count, acts: list, differing: dict, planes: list) -> list[tuple]:
        """Factors of a count, each with the bits that are counted."""
        low = T.Bind(acts[count.act] ^ planes[count.weight])
        if isinstance(count, Single):
            return [(count.factor, low)]
        high = T.Bind(acts[count.act + 1] ^ planes[count.weight + 1])
        column = planes[self.layer.weight_bits + list(self.squares).index(count.weight)]
        if isinstance(count, OffsetSquare):
            mixed = self.isa.select(high, column, differing[count.act])
        else:
            mixed = high ^ (differing[count.act] & column)
        found = [(count.high, high), (count.low, low), (count.mixed, mixed)]
        return [(factor, bits) for factor, bits in found if factor]


@contextmanager
def _flushed(counters: list[ByteCounter]):
    """Counters that are cleared first, and flushed last."""
    for counter in counters:
        counter.begin()
    yield
    for counter in counters:
        counter.flush()


def _settle(counters: list[ByteCounter]) -> None:
    for counter in counters:
        counter.settle()


def byte_counts(layer: ConvLayer) -> list[Single | Square]:
    """Counts that cover the branches of a layer.

    Offsets by pixel are the same for all groups of channels: there must be one.
    """
    geometry = layer.geometry
    sides = geometry.act_coefficients, geometry.weight_coefficients
    return counts_of(*sides, may_offset=geometry.groups == 1)


def counts_by_factor(counts: Sequence[Single | Square]) -> dict[int, int]:
    """How many counts have each coefficient, and so are added up together."""
    return dict(sorted(Counter(factor for count in counts for factor in count.factors).items()))
