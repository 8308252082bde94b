"""Sums of branches by xor and popcount: one xor and one count per 64 products in a lane.

Two by two planes take three counts, see `branch_cover.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...encoding import WORD_BITS
from ...layer import ConvLayer
from ...te.conv2d import xnor_weights
from ..accumulator import MAX_COMPARED, AccumulatorTerms, differing_bits, inverted_channels
from ..contract import IsaT, Sums, TileContext
from ..isa import Isa
from ..nest.geometry import by_block, padded_width
from ..nest.pixel_words import PixelWords
from ..nest.tile import Tile, divisors
from ..tir import Expr, Register, load, reinterpret, splat, vector
from .branch_cover import Single, Square, cover
from .pixelwise import PixelwiseProduct

OCTET = 8
MAX_UNROLL = 6  # Words written out one after another.
MAX_BYTE_COUNTS = 31  # Counts of up to 8 that fit a byte.


Tap = tuple[Expr, Expr, Expr]  # Row and column of the window, and a word of the channels.
Counters = list[list[dict[int, Register]]]  # By pixel, vector of weights, and coefficient.
Popcount = Callable[[Expr], Expr]


class Xnor(PixelwiseProduct[IsaT]):
    """Product of packed planes, as they are.

    Output channels lie in 64-bit lanes. The counts of branches with the same coefficient share a
    vector. Without a popcount instruction, bytes count first and are summed late.

    Parameters
    ----------
    layer : ConvLayer
    isa : Isa
    tile : Tile
    """

    name = "xnor"
    reads_planes = True

    def __init__(self, layer: ConvLayer, isa: IsaT, tile: Tile):
        super().__init__(layer, isa, tile)
        self.words = layer.geometry.groups * layer.words
        self.counts = cover_of(layer)
        self.factors = sorted({factor for count in self.counts for factor in count.factors})

    @staticmethod
    def applies(layer: ConvLayer, isa: Isa) -> bool:
        """Whether groups of channels start a word, counts fit where they are added up, and rise."""
        per_group = layer.weight_codes.shape[1]
        counts_fit = isa.has_popcount or counts_per_factor(layer) <= MAX_BYTE_COUNTS
        counts_fit &= not layer.geometry.has_negative_branches
        return counts_fit and (layer.geometry.groups == 1 or per_group % WORD_BITS == 0)

    @staticmethod
    def lanes_of(_layer: ConvLayer, isa: Isa) -> int:
        """Output channels to a vector."""
        return isa.vector_bytes // 8

    @property
    def sum_dtype(self) -> str:
        """Type that sums are compared in; bits of fewer lanes would fill no integer."""
        return "uint64" if self.lanes >= OCTET else "int32"

    @cached_property
    def terms(self) -> AccumulatorTerms:
        """How sums lead to accumulators."""
        return differing_bits(self.layer, self._inverted, self.layer.words * WORD_BITS)

    @cached_property
    def _inverted(self) -> np.ndarray | None:
        return inverted_channels(self.layer, MAX_COMPARED)

    @property
    def constants(self) -> list[np.ndarray]:
        """Weights."""
        return [weight_planes(self.layer, self.block, self._inverted)]

    @staticmethod
    def row_bytes(layer: ConvLayer, isa: Isa) -> int:
        """Size of a prepared input row."""
        return padded_width(layer) * layer.act_bits * layer.geometry.groups * layer.words * 8

    @property
    def prepared(self) -> tuple[str, int]:
        """Type and number of elements of a prepared pixel."""
        return "uint64", self.layer.act_bits * self.words

    def prepare_pixel(self, words: PixelWords, target: tirx.Buffer, base: Expr) -> None:
        """Copy the words of a pixel."""
        for k in range(self.layer.act_bits):
            for word in range(self.words):
                T.buffer_store(target, words.word(k, word), [base + (k * self.words + word)])

    def sums(self, tile: TileContext) -> list[Sums]:
        """Sums of every pixel of a tile, in vectors of uint64."""
        counts = [
            [{f: self._zero("uint64") for f in self.factors} for _ in range(self.tile.vectors)]
            for _ in range(tile.pixels)
        ]
        if self.isa.has_popcount:
            self._count_taps(tile, counts)
        else:
            self._count_late(tile, counts)
        return [[self._total(by_factor) for by_factor in pixel] for pixel in counts]

    def _count_taps(self, tile: TileContext, counts: Counters) -> None:
        """Count under every tap; short rows of taps are written out."""
        (kernel_h, kernel_w), words = self.layer.kernel_size, self.layer.words
        if kernel_w * words <= (self.tile.unroll or MAX_UNROLL):
            with T.serial(0, kernel_h) as i:
                for j in range(kernel_w):
                    for word in range(words):
                        self._count(tile, counts, (i, j, word), tirx.popcount)
        else:
            with T.grid(kernel_h, kernel_w, words) as (i, j, word):
                self._count(tile, counts, (i, j, word), tirx.popcount)

    def _zero(self, dtype: str) -> Register:
        register = Register(dtype, self.isa.vector_bytes // (8 if dtype == "uint64" else 1))
        register.clear()
        return register

    def _count_late(self, tile: TileContext, counts: Counters) -> None:
        """Count in bytes over as many words as fit, then widen."""
        (kernel_h, kernel_w), words = self.layer.kernel_size, self.layer.words
        shared = counts_per_factor(self.layer)
        step = max(d for d in divisors(words) if d * shared <= MAX_BYTE_COUNTS)
        n = self.isa.vector_bytes
        with T.grid(kernel_h, kernel_w, words // step) as (i, j, part):
            octets = [[{f: self._zero("uint8") for f in v} for v in pixel] for pixel in counts]

            def popcount(x: Expr) -> Expr:
                return self.isa.popcount_bytes(reinterpret(vector("uint8", n), x))

            with T.serial(0, step) as word:
                self._count(tile, octets, (i, j, part * step + word), popcount)
            for pixel, narrow in zip(counts, octets):
                for by_factor, bytes_of in zip(pixel, narrow):
                    for factor, count in by_factor.items():
                        count.add(self.isa.sum_bytes(bytes_of[factor].get()))

    def _count(self, tile: TileContext, counts: Counters, at: Tap, popcount: Popcount) -> None:
        """Add one word of every branch under one tap."""
        (i, j, word), vectors = at, self.tile.vectors
        kernel_h, kernel_w = self.layer.kernel_size
        tap = ((tile.block * kernel_h + i) * kernel_w + j) * self.layer.words + word
        base = tap * (self.layer.weight_bits * self.block)
        all_weights = tile.memory.product_constants[0]
        weights = [
            [
                T.Bind(load(all_weights, base + m * self.block + v * self.lanes, self.lanes))
                for v in range(vectors)
            ]
            for m in range(self.layer.weight_bits)
        ]
        # Where the two weight planes of a square differ.
        differing = {
            count.weight: [T.Bind(a ^ b) for a, b in zip(*weights[count.weight : count.weight + 2])]
            for count in self.counts
            if isinstance(count, Square)
        }
        for p in range(tile.pixels):
            pixel = tile.address(i, j, p) + tile.group * self.layer.words + word
            acts = [
                T.Bind(splat(tile.prepared.buffer[pixel + k * self.words], self.lanes))
                for k in range(self.layer.act_bits)
            ]
            for count in self.counts:
                for v in range(vectors):
                    columns = [plane[v] for plane in weights]
                    unequal = differing[count.weight][v] if isinstance(count, Square) else None
                    for factor, bits in self._differing_bits(count, acts, columns, unequal):
                        counts[p][v][factor].add(popcount(bits))

    def _differing_bits(
        self, count: Single | Square, acts: Sums, weights: Sums, unequal: Expr | None
    ) -> list[tuple[int, Expr]]:
        """Factors of a count, each with the bits that are counted."""
        low = T.Bind(acts[count.act] ^ weights[count.weight])
        if isinstance(count, Single):
            return [(count.factor, low)]
        high = T.Bind(acts[count.act + 1] ^ weights[count.weight + 1])

        # `high`, but the lower weight plane in it where `low` and `high` agree.
        def mix(high: Expr, low: Expr, unequal: Expr) -> Expr:
            return high ^ (unequal & ~(low ^ high))

        mixed = self.isa.logic(mix, high, low, unequal)
        found = [(count.high, high), (count.low, low), (count.mixed, mixed)]
        return [(factor, bits) for factor, bits in found if factor]

    def _total(self, by_factor: dict[int, Register]) -> Expr:
        total = None
        for factor, count in by_factor.items():
            term = count.get()
            if factor != 1:
                term = term * splat(tirx.const(factor, "uint64"), self.lanes)
            total = term if total is None else total + term
        return T.Bind(total)


def weight_planes(layer: ConvLayer, block: int, inverted: np.ndarray | None) -> np.ndarray:
    """Packed weights by block, those of inverted channels with all bits turned."""
    weights = xnor_weights(layer, block)
    if inverted is None:
        return weights
    mask = by_block(inverted, layer, block).reshape(*weights.shape[:2], *[1] * 4, block)
    return np.where(mask, ~weights, weights)


def cover_of(layer: ConvLayer) -> list[Single | Square]:
    """Counts that cover the branches of a layer."""
    return cover(layer.geometry.branch_matrix)


def counts_per_factor(layer: ConvLayer) -> int:
    """How many counts are added up together at most, for they have the same coefficient."""
    factors = [factor for count in cover_of(layer) for factor in count.factors]
    return max(factors.count(factor) for factor in factors)
