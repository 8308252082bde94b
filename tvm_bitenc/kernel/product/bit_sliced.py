r"""Sums of branches on CPUs without vectors: words are added up before their bits are counted.

A count of bits takes a dozen instructions without one of its own. So each position of a word has a
counter, and slice l holds bit l of all of them: three words of equal weight become two,

.. math:: s' = s \oplus x \oplus y, \qquad c = (s \wedge x) \vee ((s \oplus x) \wedge y)

of which c goes to the next slice. That takes five instructions for two words; at the end bits of
the slices are counted, once for each output. Branches enter at the slice of their coefficient.
A CPU that does count bits in an instruction, as RISC-V with Zbb, counts those of every word.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import cached_property
from typing import Protocol

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...encoding import WORD_BITS
from ...layer import ConvLayer
from ..accumulator import MAX_COMPARED, AccumulatorTerms, differing_bits, inverted_channels
from ..contract import Sums, TileContext
from ..isa import Isa
from ..nest.geometry import padded_width
from ..nest.pixel_words import PixelWords
from ..nest.tile import Tile, divisors
from ..tir import Expr, Register, load
from .pixelwise import PixelwiseProduct
from .xnor import weight_planes

MAX_UNROLL = 8  # Words written out one after another.
MAX_BRANCHES = 64  # In the words that are written out.

Tap = tuple[Expr, Expr, Expr]  # Row and column of the window, and a word of the channels.


class BitSliced(PixelwiseProduct[Isa]):
    """Product of packed planes, in words of the CPU.

    Parameters
    ----------
    layer : ConvLayer
    isa : Isa
        Its vectors are words.
    tile : Tile
    """

    name = "xnor"

    def __init__(self, layer: ConvLayer, isa: Isa, tile: Tile):
        super().__init__(layer, isa, tile)
        self.word_bits = 8 * isa.vector_bytes
        self.dtype = f"uint{self.word_bits}"
        self.words = -(-layer.weight_codes.shape[1] // self.word_bits)  # Of a group and plane.

    @staticmethod
    def applies(layer: ConvLayer, isa: Isa) -> bool:
        """Whether every group of channels starts a word, and no branch is subtracted."""
        geometry, per_group = layer.geometry, layer.weight_codes.shape[1]
        starts_word = geometry.groups == 1 or per_group % WORD_BITS == 0
        return starts_word and not geometry.has_negative_branches

    @staticmethod
    def lanes_of(_layer: ConvLayer, _isa: Isa) -> int:
        """Output channels are taken one by one."""
        return 1

    @staticmethod
    def row_bytes(layer: ConvLayer, isa: Isa) -> int:
        """Size of a prepared input row."""
        words = -(-layer.weight_codes.shape[1] // (8 * isa.vector_bytes))
        size = layer.act_bits * layer.geometry.groups * words * isa.vector_bytes
        return padded_width(layer) * size

    @property
    def sum_dtype(self) -> str:
        """Type of the sums."""
        return "int32"

    @cached_property
    def terms(self) -> AccumulatorTerms:
        """How sums lead to accumulators."""
        return differing_bits(self.layer, self._inverted, self.words * self.word_bits)

    @cached_property
    def _inverted(self) -> np.ndarray | None:
        return inverted_channels(self.layer, MAX_COMPARED)

    @property
    def constants(self) -> list[np.ndarray]:
        """Weights, shape (group, block, channel, kernel_h, kernel_w, word, plane)."""
        weights = weight_planes(self.layer, self.block, self._inverted)
        weights = np.moveaxis(weights, (-1, -3), (2, -1))  # The words last.
        parts = np.ascontiguousarray(weights).view(f"<u{self.word_bits // 8}")[..., : self.words]
        return [np.ascontiguousarray(np.moveaxis(parts, -1, -2))]

    @property
    def prepared(self) -> tuple[str, int]:
        """Type and number of elements of a prepared pixel."""
        return self.dtype, self.layer.geometry.groups * self.words * self.layer.act_bits

    def prepare_pixel(self, words: PixelWords, target: tirx.Buffer, base: Expr) -> None:
        """Copy the words of a pixel: those that are read together lie together."""
        bits, parts = self.layer.act_bits, WORD_BITS // self.word_bits
        with T.grid(self.layer.geometry.groups * self.words, bits) as (word, k):
            value = tirx.const(0, self.dtype)
            if words.source is not None:
                whole = words.source[words.start + k * words.per_plane + word // parts]
                shift = tirx.Cast("uint64", word % parts * self.word_bits)
                value = tirx.Cast(self.dtype, whole >> shift if parts > 1 else whole)
            T.buffer_store(target, value, [base + word * bits + k])

    def sums(self, tile: TileContext) -> list[Sums]:
        """Sums of every pixel of a tile, in one vector of int32."""
        found = [T.alloc_buffer((self.block,), "int32") for _ in range(tile.pixels)]
        with T.serial(0, self.block) as channel:
            counters = [self._counter() for _ in found]
            self._count(tile, tile.block * self.block + channel, counters)
            for sums, counter in zip(found, counters):
                T.buffer_store(sums, counter.total(), [channel])
        return [[T.Bind(load(sums, 0, self.block))] for sums in found]

    def _counter(self) -> _Counter:
        """A counter that has room for all positions of all words."""
        geometry, (kernel_h, kernel_w) = self.layer.geometry, self.layer.kernel_size
        if self.isa.has_popcount:
            factors = itertools.chain.from_iterable(geometry.branch_matrix)
            return _PlainCounter(self.dtype, filter(None, factors))
        most = geometry.branch_sum * kernel_h * kernel_w * self.words
        return _SlicedCounter(self.dtype, most)

    def _count(self, tile: TileContext, channel: Expr, counters: list[_Counter]) -> None:
        """Count under all taps, some of them written out one after another."""
        (kernel_h, kernel_w), words = self.layer.kernel_size, self.words
        branches = self.layer.geometry.branch_count
        most = self.tile.unroll or max(min(MAX_UNROLL, MAX_BRANCHES // branches), 1)
        columns, steps = kernel_w, words
        if columns * steps > most:
            columns, steps = 1, max(d for d in divisors(words) if d <= most)
        with T.grid(kernel_h, kernel_w // columns, words // steps) as (i, j, part):
            for column in range(columns):
                for step in range(steps):
                    at = (i, j * columns + column, part * steps + step)
                    self._count_word(tile, channel, counters, at)
            for counter in counters:
                counter.settle()

    def _count_word(
        self, tile: TileContext, channel: Expr, counters: list[_Counter], at: Tap
    ) -> None:
        """Add one word of every branch under one tap."""
        (i, j, word), (kernel_h, kernel_w) = at, self.layer.kernel_size
        act_bits, weight_bits = self.layer.act_bits, self.layer.weight_bits
        base = (((channel * kernel_h + i) * kernel_w + j) * self.words + word) * weight_bits
        stored = tile.memory.product_constants[0]
        weights = [T.Bind(stored[base + m]) for m in range(weight_bits)]
        for p, counter in enumerate(counters):
            start = tile.address(i, j, p) + (tile.group * self.words + word) * act_bits
            acts = [T.Bind(tile.prepared.buffer[start + k]) for k in range(act_bits)]
            for act, column in zip(acts, zip(*self.layer.geometry.branch_matrix)):
                for weight, factor in zip(weights, column):
                    if factor:
                        counter.add(factor, T.Bind(act ^ weight))


class _Counter(Protocol):
    """What adds up the bits of words."""

    def add(self, factor: int, word: Expr) -> None:
        """Count the bits of a word, `factor` times."""

    def settle(self) -> None:
        """End words that are written out one after another."""

    def total(self) -> Expr:
        """Sum of all counts, int32."""


class _PlainCounter:
    """A counter where an instruction counts the bits of a word.

    Parameters
    ----------
    dtype : str
        Of a word.
    factors : iterable of int
        Each has a sum of its own.
    """

    def __init__(self, dtype: str, factors: Iterable[int]):
        self.sums = {f: Register(dtype, 1, tirx.const(0, dtype)) for f in sorted(set(factors))}

    def add(self, factor: int, word: Expr) -> None:
        """Count the bits of a word, `factor` times."""
        self.sums[factor].add(tirx.popcount(word))

    def settle(self) -> None:
        """Nothing waits."""

    def total(self) -> Expr:
        """Sum of all counts, int32."""
        total = tirx.const(0, "int32")
        for factor, register in self.sums.items():
            total = total + tirx.Cast("int32", register.get()) * factor
        return total


class _SlicedCounter:
    """A counter for every position of a word: slice l holds bit l of all of them.

    Parameters
    ----------
    dtype : str
        Of a word.
    most : int
        Largest count.
    """

    def __init__(self, dtype: str, most: int):
        count = most.bit_length()
        self.slices = [Register(dtype, 1, tirx.const(0, dtype)) for _ in range(count)]
        self.waiting: list[Expr | None] = [None] * count

    def add(self, factor: int, word: Expr) -> None:
        """Count the bits of a word, `factor` times."""
        for level in range(factor.bit_length()):
            if factor >> level & 1:
                self._add(level, word)

    def _add(self, level: int, word: Expr) -> None:
        """Let a word wait for another one, or add both."""
        first = self.waiting[level]
        if first is None:
            self.waiting[level] = word
            return
        self.waiting[level] = None
        before = self.slices[level].get()
        differing = T.Bind(before ^ first)
        carry = T.Bind((before & first) | (differing & word))
        self.slices[level].set(differing ^ word)
        self._carry(level + 1, carry)

    def _carry(self, level: int, word: Expr) -> None:
        if level < len(self.slices):  # Beyond, nothing is ever carried.
            self._add(level, word)

    def settle(self) -> None:
        """Add the words that wait."""
        for level, word in enumerate(self.waiting):
            if word is not None:
                self.waiting[level] = None
                carry = T.Bind(self.slices[level].get() & word)
                self.slices[level].set(self.slices[level].get() ^ word)
                self._carry(level + 1, carry)

    def total(self) -> Expr:
        """Sum of all counts, int32."""
        total = None
        for level, part in enumerate(self.slices):
            term = tirx.Cast("int32", tirx.popcount(part.get())) << level
            total = term if total is None else total + term
        return total
