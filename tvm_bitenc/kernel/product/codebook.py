r"""Sums of kernels of which there are few: each input channel's window is looked up once.

Where every kernel of a layer is one of at most 64 codewords w, the window of an input channel has
as many sums at most, whatever the number of output channels:

.. math:: t[w] = \sum_{m,k} \kappa_m \kappa_k \sum_i \mathrm{popcount}(a_{k,i} \oplus w_{m,i})

The window of a plane is a number of nine bits, its *patch*, and the sums of all patches are a table
that the kernel makes from the codewords when it begins. So t is a row of that table, or the sum of
one row a plane; one byte shuffle then looks it up for as many output channels as a vector has
bytes. That is nine products to a look-up, where `lut` has four or six, and t is never stored.

Before, patches are made of all windows: numbers of rows, two bytes each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...codewords import Codewords
from ...encoding import WORD_BITS
from ...layer import ConvLayer
from ..accumulator import AccumulatorTerms, differing_bits
from ..contract import Prepared, Sums, TaskContext, TileContext
from ..isa import Isa
from ..nest.geometry import (
    blocks_at_once,
    by_block,
    padded_blocks,
    padded_width,
    prepared_rows,
)
from ..nest.pixel_words import PixelWords
from ..nest.tile import Tile, divisors
from ..tir import Expr, Vector, constant, load, reinterpret, store, vector
from ..transpose import PLANES, bytes_of_words
from .lookup_sums import LookupSums
from .lut_plan import MAX_ENTRY_SUM, MAX_PAIR_SUM
from .packed_index import pack_index, unpack_index
from .pixelwise import PixelwiseProduct

BITS = [1 << bit for bit in range(PLANES)]
MAX_VECTORS = 4  # Of output channels that share a row.
TABLE_BYTES = 64 << 10
# Channels written out one after another: few, for there are many pixels and vectors.
MAX_UNROLL, MAX_UNROLL_NARROW = 2, 7
NARROW = 16  # Bytes of vectors on CPUs of which some take instructions in order.


@dataclass(frozen=True, eq=False)
class PreparedPatches(Prepared):
    """Rows of the windows of a task, and what they are rows of.

    Parameters
    ----------
    rows : flat buffer of uint8
        The table: every codeword's sum with every patch, plane after plane.
    index : flat buffer of uint8
        Which codeword the kernels are: input channels, then output channels of a block.
    """

    rows: tirx.Buffer | None = None
    index: tirx.Buffer | None = None


class Codebook(PixelwiseProduct[Isa]):
    """Product by looking up codewords.

    Parameters
    ----------
    layer : ConvLayer
    isa : Isa
    tile : Tile
    """

    name = "codebook"
    reads_planes = True

    def __init__(self, layer: ConvLayer, isa: Isa, tile: Tile):
        super().__init__(layer, isa, tile)
        self.words = -(-layer.input_shape[3] // WORD_BITS)  # Of all groups.
        self.codewords = _codewords(layer)
        self.entries = entries_of(layer)
        self.parts = parts_of(layer, self.entries)
        most = MAX_VECTORS // tile.vectors
        self.blocks_at_once = blocks_at_once(layer, self.block, most, tile.splits)

    @staticmethod
    def applies(layer: ConvLayer, isa: Isa) -> bool:
        """Whether the layer has codewords that shuffles take, and some sums fit a byte."""
        geometry = layer.geometry
        return (
            geometry.is_product
            and min(*geometry.act_coefficients, *geometry.weight_coefficients) > 0
            and 2 * largest_entry(layer) <= MAX_ENTRY_SUM
            and layer.codewords is not None
            and entries_of(layer) <= isa.most_entries
        )

    @staticmethod
    def lanes_of(_layer: ConvLayer, isa: Isa) -> int:
        """Output channels to a vector."""
        return isa.vector_bytes

    @staticmethod
    def row_bytes(layer: ConvLayer, _isa: Isa) -> int:
        """Size of the planes and patches of a row."""
        words = -(-layer.input_shape[3] // WORD_BITS) * layer.act_bits
        return words * (padded_width(layer) * 8 + layer.output_size[1] * 2 * WORD_BITS)

    @property
    def sum_dtype(self) -> str:
        """Type of the sums."""
        return "uint16" if self.is_narrow else "int32"

    @cached_property
    def terms(self) -> AccumulatorTerms:
        """How sums lead to accumulators."""
        return differing_bits(self.layer, None, self._per_group)

    @property
    def is_narrow(self) -> bool:
        """Whether whole sums fit 16 bits."""
        return self.terms.high < MAX_PAIR_SUM

    @property
    def constants(self) -> list[np.ndarray]:
        """Indices of the kernels, packed; and how the table is made, see `table_steps`."""
        packed = pack_index(self._index(), self.codewords.index_bits, self.isa.vector_bytes)
        return [packed, table_steps(self.layer, self.entries)]

    def _index(self) -> np.ndarray:
        """Codewords of a block's kernels, channel by channel, so ordered that `LookupSums` fits.

        Returns
        -------
        ndarray of uint8, shape (blocks, in_channels / groups, vectors * lanes)
        """
        index = by_block(np.ascontiguousarray(self.codewords.index.T), self.layer, self.block)
        # o = block, half, vector, pair
        index = index.reshape(self._per_group, -1, 2, self.tile.vectors, self.lanes // 2)
        index = index.transpose(1, 0, 3, 4, 2)
        return np.ascontiguousarray(index.reshape(len(index), self._per_group, -1))

    @property
    def _per_group(self) -> int:
        return self.layer.weight_codes.shape[1]

    @property
    def _group_blocks(self) -> int:
        return padded_blocks(self.layer, self.block)

    @property
    def prepared(self) -> tuple[str, int]:
        """Type and number of elements of a prepared pixel: its planes as they are."""
        return "uint64", self.layer.act_bits * self.words

    def prepare_pixel(self, words: PixelWords, target: tirx.Buffer, base: Expr) -> None:
        """Copy the words of a pixel."""
        with T.serial(0, self.layer.act_bits * self.words) as word:
            T.buffer_store(target, words.word(0, word), [base + word])

    def prepare(self, task: TaskContext) -> PreparedPatches:
        """Make the tables, the patches of all windows and the indices of all kernels."""
        planes = super().prepare(task)
        packed, steps = task.memory.product_constants
        blocks = self.layer.geometry.groups * self._group_blocks
        vectors = blocks * self._per_group * self.tile.vectors
        index = unpack_index(packed, vectors, self.codewords.index_bits, self.isa)
        pixel_size = len(self.parts) * self.words * WORD_BITS
        return PreparedPatches(
            self._patches(task, planes, pixel_size),
            pixel_size=pixel_size,
            codes=planes.codes,
            rows=self._tables(steps),
            index=index,
        )

    def _tables(self, steps: tirx.Buffer) -> tirx.Buffer:
        """Write the sums of all patches: with a bit more, there are twice as many."""
        n, kappa, start = self.entries, self.layer.geometry.act_coefficients, 0
        tables = T.alloc_buffer((sum(n << len(part) for part in self.parts),), "uint8")
        factors = [constant(factor, "uint8", n) for factor in kappa]
        for number, part in enumerate(self.parts):
            empty = load(steps, 0, n) * constant(sum(kappa) if number == 0 else 0, "uint8", n)
            store(tables, empty, start, n)
            for bit, (k, t) in enumerate(part):
                change = T.Bind(load(steps, (t + 1) * n, n) * factors[k])
                with T.serial(0, 1 << bit) as patch:
                    without = load(tables, start + patch * n, n)
                    store(tables, without + change, start + (patch + (1 << bit)) * n, n)
            start += n << len(part)
        return tables

    def _patches(self, task: TaskContext, planes: Prepared, pixel_size: int) -> tirx.Buffer:
        """Write where the rows of all windows begin in the tables of their parts."""
        out_width = self.layer.output_size[1]
        pixels: Expr = self.tile.rows * out_width
        patches = T.alloc_buffer((pixels * pixel_size,), "uint16")
        if task.memory.pixel_count is not None:  # LLVM must not know that they are few.
            seen = prepared_rows(self.layer, self.tile.rows) * padded_width(self.layer)
            pixels = task.memory.pixel_count[0] - (seen - pixels)
        with T.serial(0, pixels) as pixel, T.serial(0, self.words) as word:
            row, column = T.Bind(pixel // out_width), T.Bind(pixel % out_width)
            taps = self._words_under(planes, row, column, word)
            base = T.Bind(pixel * pixel_size + word * WORD_BITS)
            for number, part in enumerate(self.parts):
                words = [taps[k][t] for k, t in part]
                self._write_patches(patches, base + number * self.words * WORD_BITS, words)
        return patches

    def _words_under(
        self, planes: Prepared, row: Expr, column: Expr, word: Expr
    ) -> list[list[Expr]]:
        """One word of every plane, at every tap of a window."""
        geometry, width = self.layer.geometry, padded_width(self.layer)
        (stride_h, stride_w), (dilation_h, dilation_w) = geometry.strides, geometry.dilation
        found: list[list[Expr]] = [[] for _ in range(self.layer.act_bits)]
        for i, j in np.ndindex(*self.layer.kernel_size):
            pixel = (row * stride_h + i * dilation_h) * width + column * stride_w + j * dilation_w
            place = T.Bind(planes.start + pixel * planes.pixel_size + word)
            for k, words in enumerate(found):
                words.append(T.Bind(load(planes.buffer, place + k * self.words, 1)))
        return found

    def _write_patches(self, patches: tirx.Buffer, base: Expr, words: list[Expr]) -> None:
        """Write the patches of a word of channels: a bit of every word."""
        lanes = self.isa.vector_bytes
        row_bits = constant(self.entries.bit_length() - 1, "uint16", lanes)
        in_turns = [side * lanes + lane for lane in range(lanes) for side in range(2)]
        for start in range(0, WORD_BITS, lanes):
            halves = [
                T.Bind(bytes_of_words(self.isa, some, BITS, start))
                for some in (words[:PLANES], words[PLANES:])
            ]
            octets = T.Bind(tirx.Shuffle(halves, in_turns))
            places = reinterpret(vector("uint16", lanes), octets) << row_bits
            store(patches, places, base + start, lanes)

    def sums(self, tile: TileContext) -> list[Sums]:
        """Sums of every pixel of a tile, of one block."""
        return self.sums_of_blocks(tile)[0]

    def sums_of_blocks(self, tile: TileContext) -> list[list[Sums]]:
        """Sums of every pixel, for every block: uint16 vectors, or int32."""
        vectors = self.tile.vectors
        sums = [
            [LookupSums(self.isa, vectors, self.is_narrow, slots=1) for _ in range(tile.pixels)]
            for _ in range(self.blocks_at_once)
        ]
        every = [pixel for block in sums for pixel in block]
        for piece in self._pieces():
            with T.serial(0, piece.flushes) as flush:
                with T.serial(0, piece.chunks) as chunk:
                    for pixel in every:
                        pixel.clear_octets()
                    first = piece.first + (flush * piece.chunks + chunk) * piece.size
                    self._look_up_some(tile, sums, first, piece.size)
                    for pixel in every:
                        pixel.widen()
                if not self.is_narrow:
                    for pixel in every:
                        pixel.flush(1)
        return [[pixel.halves() for pixel in block] for block in sums]

    def _pieces(self) -> list[_Piece]:
        """Loops over the channels: bytes hold a chunk, pairs of bytes what is between flushes."""
        entry, channels = largest_entry(self.layer), self._per_group
        size = min(MAX_ENTRY_SUM // entry, channels)
        chunks = channels // size
        per_flush = chunks if self.is_narrow else min(MAX_PAIR_SUM // (entry * size), chunks)
        flushes = chunks // per_flush
        left = chunks - flushes * per_flush
        found = [_Piece(flushes, per_flush, size, 0)]
        if left:
            found.append(_Piece(1, left, size, flushes * per_flush * size))
        if channels > chunks * size:
            found.append(_Piece(1, 1, channels - chunks * size, chunks * size))
        return found

    def _look_up_some(
        self, tile: TileContext, sums: list[list[LookupSums]], first: Expr, count: int
    ) -> None:
        """Look up the windows of some channels, a few of them written out."""
        usual = MAX_UNROLL_NARROW if self.isa.vector_bytes == NARROW else MAX_UNROLL
        most = min(self.tile.unroll or usual, count)
        step = max(d for d in divisors(count) if d <= most)
        with T.serial(0, count // step) as part:
            for t in range(step):
                self._look_up(tile, sums, first + part * step + t)

    def _look_up(self, tile: TileContext, sums: list[list[LookupSums]], channel: Expr) -> None:
        """Look up the window of one channel under every pixel."""
        prepared, n, vectors = tile.prepared, self.isa.vector_bytes, self.tile.vectors
        assert isinstance(prepared, PreparedPatches)
        index = []
        for block in range(self.blocks_at_once):
            start = ((tile.block + block) * self._per_group + channel) * (vectors * n)
            index.append([T.Bind(load(prepared.index, start + v * n, n)) for v in range(vectors)])
        for p in range(tile.pixels):
            row = self._row(tile, prepared, p, channel)
            for of_block, chosen in zip(sums, index):
                for v, of_vector in enumerate(chosen):
                    of_block[p].add(v, self.isa.table_lookup(row, self.entries, of_vector))

    def _row(
        self, tile: TileContext, prepared: PreparedPatches, p: int, channel: Expr
    ) -> Sequence[Vector]:
        """Sums of all codewords with the window of a channel, as a table to look into."""
        pixel = tile.row * self.layer.output_size[1] + tile.column + p
        place = pixel * prepared.pixel_size + tile.group * self._per_group + channel
        lanes, table = min(self.entries, self.isa.vector_bytes), 0
        total: list[Vector] = []
        for number, part in enumerate(self.parts):
            start = load(prepared.buffer, place + number * self.words * WORD_BITS, 1)
            start = T.Bind(table + tirx.Cast("int32", start))
            found = [
                load(prepared.rows, start + first, lanes) for first in range(0, self.entries, lanes)
            ]
            total = [a + b for a, b in zip(total, found)] if total else found
            table += self.entries << len(part)
        return [T.Bind(part) for part in total]


@dataclass(frozen=True)
class _Piece:
    """Loops over neighbouring channels.

    Parameters
    ----------
    flushes, chunks, size : int
        So many times pairs of bytes are flushed, each time after so many chunks of so many.
    first : int
        The first channel.
    """

    flushes: int
    chunks: int
    size: int
    first: int


def _codewords(layer: ConvLayer) -> Codewords:
    """Codewords of a layer that `Codebook` applies to."""
    assert layer.codewords is not None
    return layer.codewords


def entries_of(layer: ConvLayer) -> int:
    """Entries of a row of the table: one for each codeword, padded to 16, 32 or 64."""
    return 1 << _codewords(layer).index_bits


def parts_of(layer: ConvLayer, entries: int) -> list[list[tuple[int, int]]]:
    """Bits of a window, by plane and tap, in parts that have a table each.

    As few as leave the tables in the first-level cache.
    """
    taps = layer.kernel_size[0] * layer.kernel_size[1]
    bits = [(k, t) for k in range(layer.act_bits) for t in range(taps)]
    count = 1
    while True:
        parts = [bits[start::count] for start in range(count)]
        if sum(entries << len(part) for part in parts) <= TABLE_BYTES:
            return parts
        count += 1


def largest_entry(layer: ConvLayer) -> int:
    """Largest sum of one window."""
    geometry, (height, width) = layer.geometry, layer.kernel_size
    most = sum(geometry.act_coefficients) * sum(geometry.weight_coefficients)
    return height * width * most


def table_steps(layer: ConvLayer, entries: int) -> np.ndarray:
    """How the sums of a patch follow from those of one with a bit less.

    Returns
    -------
    ndarray of uint8, shape (1 + taps, entries)
        Sums of the empty patch, and what each tap adds to them, modulo 256.
    """
    kernels, kappa = _codewords(layer).kernels, layer.geometry.weight_coefficients
    bits = kernels[..., None] >> np.arange(len(kappa)) & 1
    empty = bits @ np.array(kappa)  # w, taps: an activation bit of 0 differs from ones.
    changes = sum(kappa) - 2 * empty
    steps = np.vstack([empty.sum(axis=1), changes.T])
    return np.pad(steps, [(0, 0), (0, entries - len(kernels))]).astype(np.uint8)
