r"""Sums of branches where a vector's bits are counted byte by byte, in one instruction.

Bytes add up counts until they are full; then all vectors of eight output channels are added up
pair by pair, which leaves one vector of sixteen bits a channel. Two neighbouring words of a channel
fill a 128-bit vector; where the words are odd in number, two output channels do.

Two by two planes take three counts, see `branch_cover.py`, of bits that six instructions make and
count: :math:`\lnot y` is stored as one more plane of the weights. What the sums of one side alone
come to is an offset by output channel and by pixel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...layer import ConvLayer
from ..contract import Sums, TileContext
from ..isa import Isa
from ..neon import Neon
from ..nest.pixel_words import PixelWords
from ..nest.tile import Tile, divisors
from ..tir import Expr, load, splat, store
from .branch_cover import OffsetSquare, Single, Square, cover
from .widening_counter import WideningCounter, neighbours_added
from .xnor import MAX_BYTE_COUNTS, OCTET, Tap, Xnor

PAIR = 2  # Words of a vector.
AT_ONCE = 4  # Vectors of channels: as many as give one vector of sums.
MAX_UNROLL = 12  # Vectors of weights written out one after another, for each channel.
MAX_WORD_SUM = 65534  # Thresholds go one beyond.


class ByteXnor(Xnor[Neon]):
    """Product of packed planes, as they are, for vectors of 128 bits.

    Parameters
    ----------
    layer : ConvLayer
    isa : Neon
    tile : Tile
    """

    def __init__(self, layer: ConvLayer, isa: Neon, tile: Tile):
        super().__init__(layer, isa, tile)
        self.counts = byte_cover(layer)
        self.per_step = counts_by_factor(self.counts)
        self.depth = PAIR // self.lanes
        self.steps = layer.words // self.depth  # Vectors under a tap.
        squares = [(c.weight, type(c)) for c in self.counts if isinstance(c, Square)]
        self.squares = list(dict.fromkeys(squares))
        self.columns = layer.weight_bits + len(self.squares)
        self.at_once = min(AT_ONCE, tile.vectors)  # Others would need more registers.
        self.limit = MAX_BYTE_COUNTS // max(self.per_step.values())  # Steps.

    @staticmethod
    def applies(layer: ConvLayer, isa: Isa) -> bool:
        """Whether every group of channels starts a word, and a byte holds the counts of a step."""
        most = max(counts_by_factor(byte_cover(layer)).values())
        return Xnor.applies(layer, isa) and most <= MAX_BYTE_COUNTS

    @staticmethod
    def lanes_of(layer: ConvLayer, _isa: Isa) -> int:
        """Output channels to a vector."""
        return 1 if layer.words % PAIR == 0 else PAIR

    @property
    def is_narrow(self) -> bool:
        """Whether whole sums fit 16 bits."""
        return self.terms.high <= MAX_WORD_SUM

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
        added = [self._added_plane(weights, m, kind) for m, kind in self.squares]
        planes = np.stack([*np.moveaxis(weights, -2, 0), *added], axis=-2)
        at_once = self.at_once * self.lanes
        planes = planes.reshape(*outer, self.steps, self.depth, self.columns, -1, at_once)
        planes = np.moveaxis(np.moveaxis(planes, -2, 2), -3, -1)
        # Were the number of other rows known, LLVM would write them out, where paired loads don't
        # reach.
        rows = np.array([self.layer.kernel_size[0] - 1], np.int32)
        offsets = [self._offsets(weights)] if self.has_offsets else []
        return [np.ascontiguousarray(planes), rows, *offsets]

    @staticmethod
    def _added_plane(weights: np.ndarray, plane: int, kind: type) -> np.ndarray:
        """Where two planes differ; for the other kind of square, where they agree."""
        differing = weights[..., plane, :] ^ weights[..., plane + 1, :]
        return ~differing if kind is OffsetSquare else differing

    @property
    def has_offsets(self) -> bool:
        """Whether sums of one side alone are part of the sums."""
        return bool(self._offset_squares)

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

    def prepare_pixel(self, words: PixelWords, target: tirx.Buffer, base: Expr) -> None:
        """Copy the words of a pixel: those that a step reads lie together, plane by plane."""
        bits, depth = self.layer.act_bits, self.depth
        for word in range(0, self.words, depth):
            for k in range(bits):
                value = words.neighbours(k * self.words + word, depth)
                store(target, value, base + (word * bits + k * depth), depth)

    def pixel_offset(self, words: PixelWords) -> Expr:
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

    def sums(self, tile: TileContext) -> list[Sums]:
        """Sums of every pixel of a tile, in vectors of eight channels."""
        parts = [
            self._sums_of_part(tile, range(v, v + self.at_once))
            for v in range(0, self.tile.vectors, self.at_once)
        ]
        found = []
        for p, values in enumerate(map(list, zip(*parts))):
            while len(values) > self.block // OCTET:
                values = neighbours_added(self.isa, values)
            found.append([self._with_offset(tile, p, v, value) for v, value in enumerate(values)])
        return found

    def _with_offset(self, tile: TileContext, p: int, octet: int, value: Expr) -> Expr:
        if not self.has_offsets:
            return value
        first = tile.block * self.block + octet * OCTET
        of_channels = load(tile.memory.product_constants[2], first, OCTET)
        of_pixel = tirx.Cast(self.sum_dtype, tile.offset(p))
        return T.Bind(value + (of_channels - splat(of_pixel, OCTET)))

    def _sums_of_part(self, tile: TileContext, vectors: range) -> Sums:
        """Sums of some vectors of channels under every pixel: one vector of eight lanes each."""
        (kernel_h, kernel_w), steps = self.layer.kernel_size, self.steps
        row, whole = kernel_w * steps, kernel_h * kernel_w * steps
        if whole <= self.limit:
            part = self._part(tile, vectors, whole)
            self._count_row(part, 0)  # The first counts: nothing is cleared.
            with T.serial(0, tile.memory.product_constants[1][0]) as i:
                self._count_row(part, i + 1)
        elif row <= self.limit:
            part = self._part(tile, vectors, row)
            part.settle()
            with T.serial(0, kernel_h) as i, part.flushed():
                self._count_row(part, i)
        else:
            late = max(d for d in divisors(steps) if d <= self.limit)
            part = self._part(tile, vectors, late)
            part.settle()
            with T.grid(kernel_h, kernel_w, steps // late) as (i, j, outer), part.flushed():
                self._count_steps(part, (i, j, outer * late), late)
        return [counter.finish() for counter in part.counters]

    def _part(self, tile: TileContext, vectors: range, between: int) -> _Part:
        """Counters of some vectors of channels that are flushed after so many steps."""
        whole = self.layer.kernel_size[0] * self.layer.kernel_size[1] * self.steps
        counters = [
            WideningCounter(self.isa, vectors, self.per_step, whole, between, self.sum_dtype)
            for _ in range(tile.pixels)
        ]
        return _Part(tile, vectors, counters)

    def _count_row(self, part: _Part, i: Expr) -> None:
        """Count under a row of taps."""
        kernel_w = self.layer.kernel_size[1]
        if kernel_w * self.steps <= (self.tile.unroll or MAX_UNROLL):
            # Neighbouring taps read the same pixels: each is loaded once.
            for step in range(self.steps):
                for j in range(kernel_w):
                    self._count_step(part, (i, j, step))
        else:
            part.settle()
            with T.serial(0, kernel_w) as j:
                self._count_steps(part, (i, j, 0), self.steps)

    def _count_steps(self, part: _Part, first: Tap, count: int) -> None:
        """Count neighbouring vectors under one tap."""
        i, j, start = first
        step = max(d for d in divisors(count) if d <= (self.tile.unroll or MAX_UNROLL))
        if step < count:
            part.settle()
        with T.serial(0, count // step) as outer:
            for t in range(step):
                self._count_step(part, (i, j, start + outer * step + t))

    def _count_step(self, part: _Part, at: Tap) -> None:
        """Count one vector of every branch under one tap."""
        (i, j, step), tile, (kernel_h, kernel_w) = at, part.tile, self.layer.kernel_size
        number = tile.block * (self.tile.vectors // self.at_once)
        number = number + part.vectors.start // self.at_once
        tap = ((number * kernel_h + i) * kernel_w + j) * self.steps + step
        base = T.Bind(tap * (self.columns * self.at_once * PAIR))
        acts = [self._acts(tile, tile.address(i, j, p), step) for p in range(tile.pixels)]
        squares = {c.act for c in self.counts if isinstance(c, Square)}
        differing = [{k: T.Bind(a[k] ^ a[k + 1]) for k in squares} for a in acts]
        # Weights take part one vector after another: registers hold the pixels.
        for place, v in enumerate(part.vectors):
            starts = [base + (m * self.at_once + place) * PAIR for m in range(self.columns)]
            weights = tile.memory.product_constants[0]
            planes = [T.Bind(load(weights, start, PAIR)) for start in starts]
            for p, counter in enumerate(part.counters):
                for count in self.counts:
                    for factor, bits in self._bits(count, acts[p], differing[p], planes):
                        counter.add(v, factor, bits)

    def _acts(self, tile: TileContext, pixel: Expr, step: Expr) -> list[Expr]:
        """Planes of a pixel, one vector of each."""
        bits, depth, buffer = self.layer.act_bits, self.depth, tile.prepared.buffer
        word = tile.group * self.layer.words + step * depth
        if tile.prepared.is_copy:
            starts = [pixel + word * bits + k * depth for k in range(bits)]
        else:
            starts = [pixel + k * self.words + word for k in range(bits)]
        if depth == PAIR:
            return [T.Bind(load(buffer, start, PAIR)) for start in starts]
        return [T.Bind(splat(buffer[start], PAIR)) for start in starts]

    def _bits(
        self,
        count: Single | Square,
        acts: Sequence[Expr],
        differing: Mapping[int, Expr],
        planes: Sequence[Expr],
    ) -> list[tuple[int, Expr]]:
        """Factors of a count, each with the bits that are counted."""
        low = T.Bind(acts[count.act] ^ planes[count.weight])
        if isinstance(count, Single):
            return [(count.factor, low)]
        high = T.Bind(acts[count.act + 1] ^ planes[count.weight + 1])
        column = planes[self.layer.weight_bits + self.squares.index((count.weight, type(count)))]
        if isinstance(count, OffsetSquare):
            mixed = self.isa.select(high, column, differing[count.act])
        else:
            mixed = high ^ (differing[count.act] & column)
        found = [(count.high, high), (count.low, low), (count.mixed, mixed)]
        return [(factor, bits) for factor, bits in found if factor]


@dataclass(frozen=True, eq=False)
class _Part:
    """Some vectors of channels under the pixels of a tile, and their counters.

    Parameters
    ----------
    tile : TileContext
    vectors : range
    counters : list of WideningCounter
        One for each pixel.
    """

    tile: TileContext
    vectors: range
    counters: list[WideningCounter]

    def settle(self) -> None:
        """Clear registers that have no value yet."""
        for counter in self.counters:
            counter.settle()

    @contextmanager
    def flushed(self) -> Iterator[None]:
        """Scope whose counts are moved on at its end."""
        for counter in self.counters:
            counter.begin()
        yield
        for counter in self.counters:
            counter.flush()


def byte_cover(layer: ConvLayer) -> list[Single | Square]:
    """Counts that cover the branches of a layer.

    Offsets by pixel are the same for all groups of channels: there must be one.
    """
    return cover(layer.geometry.branch_matrix, may_offset=layer.geometry.groups == 1)


def counts_by_factor(counts: Sequence[Single | Square]) -> dict[int, int]:
    """How many counts have each coefficient, and so are added up together."""
    return dict(sorted(Counter(factor for count in counts for factor in count.factors).items()))
