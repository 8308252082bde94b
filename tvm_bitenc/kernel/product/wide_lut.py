r"""Sums of branches by looking up sums of six activations, 64 bytes at a time.

Where one instruction looks up bytes in all of a vector of 64 (AVX512-VBMI), a table of `lut.py`
may have 64 entries: for every six input channels of a pixel, and each of the 64 patterns w of a
weight plane, how much the planes of the activations differ from it:

.. math:: t[w] = \sum_k \kappa_k\,\mathrm{popcount}(a_k \oplus w)

A look-up then does 384 products, and every byte is the sum of a plane and channel of its own:
nothing has to be added up over slots. A word of 64 input channels has eleven tables, the last of
four channels. A table is the sum of two halves of three channels, of which one vector holds those
of four tables.

All planes of the weight look into a table while it is in a register, two planes of 32 output
channels at once. Sums are bytes as long as those can't overflow; then the planes of a channel,
which are neighbours, meet in products of bytes with their coefficients.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...encoding import WORD_BITS
from ...layer import ConvLayer
from ..accumulator import MAX_COMPARED, AccumulatorTerms, differing_bits, inverted_channels
from ..contract import Sums, TileContext
from ..isa import Isa
from ..nest.geometry import blocks_at_once, by_block, padded_blocks, padded_width
from ..nest.pixel_words import PixelWords
from ..nest.tile import Tile
from ..tir import Expr, constant, lane_constants, load, reinterpret, splat, store, vector
from .lut_plan import MAX_ENTRY_SUM, MAX_PAIR_SUM, Level, weight_bits_of
from .pixelwise import PixelwiseProduct
from .wide_plan import (
    GROUP,
    TABLE,
    TABLES_PER_WORD,
    largest_entry,
    largest_term,
    planes_at_once,
    tables_of,
    wide_plan,
)
from .wide_sums import PAIR, WideSums

HALF = GROUP // 2
HALF_TABLE = 1 << HALF
TABLES_PER_VECTOR = TABLE // (2 * HALF_TABLE)  # Whose halves a vector holds.
MAX_COEFFICIENT = 64  # Of a plane of the weight: two bytes times it fit signed 16 bits.
MAX_WEIGHT_BITS = 4  # Beyond, sums don't fit the registers.
FULL = 2 / 3  # Least part of the lanes that must have a channel: else `Lut` is as fast.


class WideLut(PixelwiseProduct[Isa]):
    """Product by look-ups in tables of 64 entries.

    Parameters
    ----------
    layer : ConvLayer
    isa : Isa
    tile : Tile
    """

    name = "wide_lut"
    is_dear = True

    def __init__(self, layer: ConvLayer, isa: Isa, tile: Tile):
        super().__init__(layer, isa, tile)
        self.tables = tables_of(layer)
        most = planes_at_once(layer) * TABLE // (layer.weight_bits * self.block)
        self.blocks_at_once = blocks_at_once(layer, self.block, most, tile.splits)

    @staticmethod
    def applies(layer: ConvLayer, isa: Isa) -> bool:
        """Whether sums fit bytes and pairs of bytes, and lanes are filled well enough."""
        geometry, per_group = layer.geometry, layer.weight_codes.shape[1]
        out_per_group = layer.out_channels // geometry.groups
        lanes = WideLut.lanes_of(layer, isa)
        return (
            isa.has_wide_lookup
            and isa.vector_bytes == TABLE
            and (geometry.groups == 1 or per_group % WORD_BITS == 0)
            and geometry.is_product
            and layer.weight_bits <= MAX_WEIGHT_BITS
            and min(*geometry.act_coefficients, *geometry.weight_coefficients) > 0
            and max(geometry.weight_coefficients) <= MAX_COEFFICIENT
            and 2 * largest_entry(layer) <= MAX_ENTRY_SUM
            and tables_of(layer) * largest_term(layer) <= MAX_PAIR_SUM
            and out_per_group >= FULL * lanes * padded_blocks(layer, lanes)
        )

    @staticmethod
    def lanes_of(layer: ConvLayer, _isa: Isa) -> int:
        """Output channels to a vector: half of them where its planes pair and that fills it."""
        return PAIR if layer.weight_bits % 2 == 0 and padded_blocks(layer, PAIR) % 2 else TABLE

    @staticmethod
    def row_bytes(layer: ConvLayer, _isa: Isa) -> int:
        """Size of a prepared input row."""
        return padded_width(layer) * layer.geometry.groups * tables_of(layer) * TABLE

    @property
    def sum_dtype(self) -> str:
        """Type of the sums."""
        return "uint16" if self.is_narrow else "int32"

    @cached_property
    def terms(self) -> AccumulatorTerms:
        """How sums lead to accumulators."""
        words, rest = divmod(self.layer.weight_codes.shape[1], WORD_BITS)
        channels = words * WORD_BITS + min(-(-rest // GROUP) * GROUP, WORD_BITS)
        return differing_bits(self.layer, self._inverted, channels)

    @cached_property
    def _inverted(self) -> np.ndarray | None:
        return inverted_channels(self.layer, MAX_COMPARED)

    @property
    def is_narrow(self) -> bool:
        """Whether whole sums fit 16 bits."""
        return self.terms.high < MAX_PAIR_SUM

    @property
    def constants(self) -> list[np.ndarray]:
        """Weights: a 6-bit index to a byte."""
        return [wide_weights(self.layer, self.block, self._inverted)]

    @property
    def prepared(self) -> tuple[str, int]:
        """Type and number of elements of a prepared pixel."""
        return "uint8", self.layer.geometry.groups * self.tables * TABLE

    def prepare_pixel(self, words: PixelWords, target: tirx.Buffer, base: Expr) -> None:
        """Make the tables of a pixel, word by word: in a loop, for all alike take LLVM long."""
        whole, rest = divmod(self.layer.geometry.groups * self.tables, TABLES_PER_WORD)
        if whole:
            with T.serial(0, whole) as word:
                place = base + word * (TABLES_PER_WORD * TABLE)
                self._prepare_word(words, word, TABLES_PER_WORD, target, place)
        if rest:
            place = base + whole * (TABLES_PER_WORD * TABLE)
            self._prepare_word(words, whole, rest, target, place)

    def _prepare_word(
        self, words: PixelWords, word: Expr, tables: int, target: tirx.Buffer, base: Expr
    ) -> None:
        """Make the tables of one word of channels."""
        octets = [
            T.Bind(reinterpret(vector("uint8", TABLE), splat(words.word(k, word), TABLE // 8)))
            for k in range(self.layer.act_bits)
        ]
        for first in range(0, tables, TABLES_PER_VECTOR):
            halves = T.Bind(self._halves(octets, 2 * first))
            numbers = range(min(tables - first, TABLES_PER_VECTOR))
            repeated = self.isa.repeated_octets(halves, [2 * t for t in numbers])
            for t, low in zip(numbers, repeated):
                table = low + self._high(halves, 2 * t + 1)
                store(target, table, base + (first + t) * TABLE, TABLE)

    def _halves(self, octets: list[Expr], first: int) -> Expr:
        """Neighbouring tables of three channels, from the planes of their word."""
        number = [first + lane // HALF_TABLE for lane in range(TABLE)]
        offsets = lane_constants([half * HALF % WORD_BITS for half in number], "uint8")
        patterns = lane_constants([lane % HALF_TABLE for lane in range(TABLE)], "uint8")
        # The last half of a word has fewer bits: what is beyond them isn't counted.
        bits = [min(max(WORD_BITS - half * HALF, 0), HALF) for half in number]
        mask = lane_constants([(1 << count) - 1 for count in bits], "uint8")
        total = None
        for plane, kappa in zip(octets, self.layer.geometry.act_coefficients):
            found = self.isa.bits_from(offsets, plane)
            count = tirx.popcount((found ^ patterns) & mask)
            term = count if kappa == 1 else count * constant(kappa, "uint8", TABLE)
            total = term if total is None else total + term
        return total

    def _high(self, halves: Expr, number: int) -> Expr:
        """Entries of one half, each as often as the other half has entries."""
        index = [number * HALF_TABLE + entry // HALF_TABLE for entry in range(TABLE)]
        return self.isa.wide_lookup(halves, lane_constants(index, "uint8"))

    def sums(self, tile: TileContext) -> list[Sums]:
        """Sums of every pixel of a tile, of one block."""
        return self.sums_of_blocks(tile)[0]

    def sums_of_blocks(self, tile: TileContext) -> list[list[Sums]]:
        """Sums of every pixel, for every block: uint16 vectors, or int32 where those overflow."""
        kappa = self.layer.geometry.weight_coefficients
        blocks = [
            [WideSums(self.isa, self.block, kappa, self.is_narrow) for _ in range(tile.pixels)]
            for _ in range(self.blocks_at_once)
        ]
        pixels = [pixel for block in blocks for pixel in block]
        plan = wide_plan(self.layer, self.is_narrow, self.tile)
        tables = _Tables(self, tile, blocks)
        rows, columns = plan.window
        with (
            plan.summed(pixels, Level.PLANE),
            T.serial(0, rows) as i,
            plan.summed(pixels, Level.ROW),
        ):
            if plan.is_blocked:
                for count, size, first in plan.pieces:
                    with (
                        T.serial(0, count) as chunk,
                        T.serial(0, columns) as j,
                        plan.summed(pixels, Level.CHUNK),
                    ):
                        tables.look_up(i, j, first + chunk * size, size)
            else:
                with T.serial(0, columns) as j, plan.summed(pixels, Level.TAP):
                    for count, size, first in plan.pieces:
                        with T.serial(0, count) as chunk, plan.summed(pixels, Level.CHUNK):
                            tables.look_up(i, j, first + chunk * size, size)
        return [[pixel.parts() for pixel in block] for block in blocks]


@dataclass(frozen=True, eq=False)
class _Tables:
    """The tables under a tile.

    Parameters
    ----------
    product : WideLut
    tile : TileContext
    blocks : list of list of WideSums
        What is added to, for each block one for each pixel of the tile.
    """

    product: WideLut
    tile: TileContext
    blocks: list[list[WideSums]]

    def look_up(self, i: Expr, j: Expr, first: Expr, count: int) -> None:
        """Look up neighbouring tables from those of a tap on, all planes of the weight in each."""
        product, tile = self.product, self.tile
        layer, (kernel_h, kernel_w) = product.layer, product.layer.kernel_size
        vectors = product.block * layer.weight_bits // TABLE  # Of indices.
        weights = tile.memory.product_constants[0]
        tap = ((tile.block * kernel_h + i) * kernel_w + j) * product.tables
        size = kernel_h * kernel_w * product.tables * vectors * TABLE  # Of a block.
        for t in range(count):
            start = (tap + first + t) * (vectors * TABLE)
            places = [
                [start + (number * size + n * TABLE) for n in range(vectors)]
                for number in range(len(self.blocks))
            ]
            index = [[T.Bind(load(weights, place, TABLE)) for place in block] for block in places]
            if kernel_h > 1:  # Else a block has few rows: weights stay near by themselves.
                tile.prefetch_next(itertools.chain(*places), len(places) * size)
            table = (tile.group * product.tables + first + t) * TABLE
            for p in range(tile.pixels):
                entries = T.Bind(load(tile.prepared.buffer, tile.address(i, j, p) + table, TABLE))
                for of_block, chosen in zip(self.blocks, index):
                    of_block[p].look_up(entries, chosen)


def wide_weights(layer: ConvLayer, block: int, inverted: np.ndarray | None = None) -> np.ndarray:
    """Weight indices, a byte each, in the order of `WideSums`.

    Returns
    -------
    ndarray of uint8
        Shape (blocks, kernel_h, kernel_w, tables, block * weight_bits).
    """
    out_channels, per_group, kernel_h, kernel_w = layer.weight_codes.shape
    tables, bits, words = tables_of(layer), layer.weight_bits, -(-per_group // WORD_BITS)
    bit = weight_bits_of(layer, words * WORD_BITS, inverted)  # m, o, c, i, j
    bit = bit.reshape(bits, out_channels, words, WORD_BITS, kernel_h, kernel_w)
    missing = TABLES_PER_WORD * GROUP - WORD_BITS
    bit = np.pad(bit, [(0, 0), (0, 0), (0, 0), (0, missing), (0, 0), (0, 0)])
    bit = bit.reshape(bits, out_channels, -1, GROUP, kernel_h, kernel_w)[:, :, :tables]
    index = np.tensordot(bit, 1 << np.arange(GROUP), axes=(3, 0)).astype(np.uint8)
    index = by_block(np.moveaxis(index, 1, -1), layer, block)  # m, table, i, j, o
    index = index.reshape(*index.shape[:4], -1, block).transpose(4, 2, 3, 1, 0, 5)
    parts = [_side_by_side(index[..., m : m + 2, :]) for m in range(0, bits - 1, 2)]
    if bits % 2:
        halves = index[..., -1, :].reshape(*index.shape[:-2], -1, 2, PAIR)
        parts.append(_side_by_side(halves).reshape(*index.shape[:-2], block))
    return np.ascontiguousarray(np.concatenate(parts, axis=-1))


def _side_by_side(rows: np.ndarray) -> np.ndarray:
    """Of two rows, shape (..., 2, n), elements in turns."""
    return np.swapaxes(rows, -1, -2).reshape(*rows.shape[:-2], -1)
