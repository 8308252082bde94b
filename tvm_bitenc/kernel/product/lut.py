r"""Sums of branches by looking up sums of four activations.

For every four input channels of a pixel a table holds, for each of the 16 patterns w of a weight
plane, how much the planes of the activations differ from it:

.. math:: t[w] = \sum_k \kappa_k\,\mathrm{popcount}(a_k \oplus w)

A table is made once per pixel and serves all taps and all output channels. Where branches are no
product, every distinct row of their matrix has a set of tables. One byte shuffle looks up 16 output
channels in each table of a vector: neighbouring 128-bit *slots* hold the tables of neighbouring
channels, so that a vector of tables is one plain load. The cost grows with the weight bits alone.
Bytes are summed as long as they can't overflow, then pairs of bytes as long as those can't, then
int32; the slots are added up last.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...layer import ConvLayer
from ..accumulator import MAX_COMPARED, AccumulatorTerms, differing_bits, inverted_channels
from ..contract import Sums, TileContext
from ..isa import Isa
from ..nest.geometry import by_block, padded_blocks, padded_width
from ..nest.pixel_words import PixelWords
from ..nest.tile import Tile
from ..tir import Expr, constant, lane_constants, load, reinterpret, splat, store, vector
from .lookup_sums import LookupSums
from .lut_plan import (
    GROUP,
    MAX_PAIR_SUM,
    Level,
    LoopPlan,
    Part,
    Tables,
    loop_plan,
    tables_of,
    weight_bits_of,
)
from .pixelwise import PixelwiseProduct

TABLE = 16  # Entries of a table.
GROUPS_PER_WORD = 16
FEW_WORDS = 8


class Lut(PixelwiseProduct[Isa]):
    """Product by table look-up.

    Parameters
    ----------
    layer : ConvLayer
    isa : Isa
    tile : Tile
    """

    name = "lut"
    is_dear = True

    def __init__(self, layer: ConvLayer, isa: Isa, tile: Tile):
        super().__init__(layer, isa, tile)
        self.slots = isa.vector_bytes // TABLE
        self.groups = groups_of(layer, self.slots)
        self.steps = self.groups // self.slots  # Look-ups per tap.
        self.tables = tables_of(layer.geometry, self.groups)
        self.is_whole = layer.geometry.is_product and len(self.tables) == 1

    @staticmethod
    def applies(layer: ConvLayer, isa: Isa) -> bool:
        """Whether tables don't straddle groups, nor does an entry leave its bytes.

        Of a product each weight plane is the one below times 2^n; else no branch is subtracted.
        """
        geometry, per_group = layer.geometry, layer.weight_codes.shape[1]
        slots, (rows, _) = isa.vector_bytes // TABLE, geometry.table_rows
        return (
            (geometry.groups == 1 or per_group % (2 * GROUP * slots) == 0)
            and (_doubles(geometry.weight_coefficients) or not geometry.is_product)
            and min(map(min, rows)) >= geometry.is_product
            and groups_of(layer, slots) * GROUP <= MAX_PAIR_SUM  # One plane to a table, if need be.
        )

    @staticmethod
    def lanes_of(_layer: ConvLayer, _isa: Isa) -> int:
        """Output channels to a vector."""
        return TABLE

    @staticmethod
    def row_bytes(layer: ConvLayer, isa: Isa) -> int:
        """Size of a prepared input row."""
        groups = groups_of(layer, isa.vector_bytes // TABLE)
        tables = tables_of(layer.geometry, groups)
        return padded_width(layer) * len(tables) * layer.geometry.groups * groups * TABLE

    @property
    def sum_dtype(self) -> str:
        """Type of the sums."""
        return "uint16" if self.is_narrow else "int32"

    @cached_property
    def terms(self) -> AccumulatorTerms:
        """How sums lead to accumulators."""
        return differing_bits(self.layer, self._inverted, self.groups * GROUP)

    @cached_property
    def _inverted(self) -> np.ndarray | None:
        return inverted_channels(self.layer, MAX_COMPARED)

    @property
    def is_narrow(self) -> bool:
        """Whether whole sums fit 16 bits."""
        fits = self.terms.high < MAX_PAIR_SUM
        return self.is_whole and self.tables[0].part.factor == 1 and fits

    @property
    def constants(self) -> list[np.ndarray]:
        """Weights: two 4-bit indices to a byte."""
        return [lut_weights(self.layer, self.block, self.slots, self._inverted)]

    @property
    def prepared(self) -> tuple[str, int]:
        """Type and number of elements of a prepared pixel."""
        return "uint8", len(self.tables) * self._all_groups * TABLE

    @property
    def _all_groups(self) -> int:
        return self.layer.geometry.groups * self.groups

    def prepare_pixel(self, words: PixelWords, target: tirx.Buffer, base: Expr) -> None:
        """Make the tables of a pixel, word by word: of many in a loop, or LLVM takes long."""
        whole, rest = divmod(self._all_groups, GROUPS_PER_WORD)
        for p, part in enumerate(tables.part for tables in self.tables):
            place = base + p * self._all_groups * TABLE
            if whole > FEW_WORDS:
                with T.serial(0, whole) as word:
                    self._prepare_word(words, word, GROUPS_PER_WORD, part, target, place)
            else:
                for word in range(whole):
                    self._prepare_word(words, word, GROUPS_PER_WORD, part, target, place)
            if rest:
                self._prepare_word(words, whole, rest, part, target, place)

    def _prepare_word(
        self,
        words: PixelWords,
        word: Expr,
        groups: int,
        part: Part,
        target: tirx.Buffer,
        base: Expr,
    ) -> None:
        """Make the tables of one word of channels, as many at once as a vector holds."""
        n = self.isa.vector_bytes
        # The planes, each as the bytes of the word in every slot.
        octets = {
            k: T.Bind(reinterpret(vector("uint8", n), splat(words.word(k, word), n // 8)))
            for k, kappa in zip(part.planes, part.coefficients)
            if kappa
        }
        for start in range(0, groups, self.slots):
            offset = (word * GROUPS_PER_WORD + start) * TABLE
            store(target, self._entries(octets, part, start), base + offset, n)

    def _entries(self, octets: Mapping[int, Expr], part: Part, start: int) -> Expr:
        """Tables of neighbouring groups, from the planes of their word."""
        n = self.isa.vector_bytes
        groups = [start + lane // TABLE for lane in range(n)]
        chosen = lane_constants([group // 2 for group in groups], "uint8")
        patterns = lane_constants([lane % TABLE * 17 for lane in range(n)], "uint8")
        mask = lane_constants([0xF0 if group % 2 else 0x0F for group in groups], "uint8")
        total = None
        for k, octet in octets.items():
            kappa = part.coefficients[k - part.planes.start]
            spread = self.isa.lookup(octet, chosen)
            count = self._popcount((spread ^ patterns) & mask)
            term = count if kappa == 1 else count * constant(kappa, "uint8", n)
            total = term if total is None else total + term
        return T.Bind(total)

    def _popcount(self, value: Expr) -> Expr:
        if self.isa.has_popcount:
            return tirx.popcount(value)
        return self.isa.popcount_bytes(value)

    def sums(self, tile: TileContext) -> list[Sums]:
        """Sums of every pixel of a tile: uint16 vectors, or int32 where those could overflow."""
        pixels = [
            LookupSums(self.isa, self.tile.vectors, self.is_narrow) for _ in range(tile.pixels)
        ]
        for number, tables in enumerate(self.tables):
            self._add_part(tile, pixels, number, tables)
        return [pixel.halves() for pixel in pixels]

    def _add_part(
        self, tile: TileContext, pixels: list[LookupSums], number: int, tables: Tables
    ) -> None:
        """Add the planes of the weight, highest first, with the sum doubled in between."""
        part, before = tables.part, 0
        plan = loop_plan(
            part, self.steps, self.slots, self.layer.kernel_size, self.is_narrow, self.tile.unroll
        )
        for m, kappa in reversed(tables.weight_planes):
            if before and self.is_whole:
                for pixel in pixels:
                    pixel.scale(before // kappa)
            before = kappa
            factor = part.factor * (1 if self.is_whole else kappa)
            self._add_plane(_Plane(tile, pixels, plan, number, m, factor))

    def _add_plane(self, plane: _Plane) -> None:
        """Look up all tables under the taps for one plane of the weight."""
        (kernel_h, kernel_w), plan = self.layer.kernel_size, plane.plan
        with (
            plane.summed(Level.PLANE),
            T.serial(0, kernel_h) as i,
            plane.summed(Level.ROW),
            T.serial(0, kernel_w) as j,
            plane.summed(Level.TAP),
            T.serial(0, plan.chunks) as outer,
            plane.summed(Level.CHUNK),
            T.serial(0, plan.steps) as inner,
        ):
            self._look_up(plane, i, j, (outer * plan.steps + inner) * plan.unrolled)

    def _look_up(self, plane: _Plane, i: Expr, j: Expr, first: Expr) -> None:
        """Look up some neighbouring tables of one tap."""
        (kernel_h, kernel_w), tile = self.layer.kernel_size, plane.tile
        n, vectors = self.isa.vector_bytes, self.tile.vectors
        weights = tile.memory.product_constants[0]
        number = tile.block * self.layer.weight_bits + plane.weight_plane
        tap = ((number * kernel_h + i) * kernel_w + j) * (self.steps // 2)
        group = plane.part_number * self._all_groups + tile.group * self.groups
        for t in range(plane.plan.unrolled):
            if t % 2 == 0:
                start, weights = (
                    (tap + (first + t) // 2) * vectors * n,
                    tile.memory.product_constants[0],
                )
                both = [T.Bind(load(weights, start + v * n, n)) for v in range(vectors)]
                indices = [[T.Bind(half) for half in self.isa.nibbles(octets)] for octets in both]
            for p, pixel in enumerate(plane.pixels):
                start = tile.address(i, j, p) + (group + (first + t) * self.slots) * TABLE
                tables = T.Bind(load(tile.prepared.buffer, start, n))
                for v in range(vectors):
                    pixel.look_up(v, tables, indices[v][t % 2])


@dataclass(frozen=True, eq=False)
class _Plane:
    """One plane of the weight, looked up in the tables of one part.

    Parameters
    ----------
    tile : TileContext
    pixels : list of LookupSums
        What is added to, one for each pixel of the tile.
    plan : LoopPlan
    part_number, weight_plane : int
    factor : int
        Of what goes over to int32.
    """

    tile: TileContext
    pixels: list[LookupSums]
    plan: LoopPlan
    part_number: int
    weight_plane: int
    factor: int

    @contextmanager
    def summed(self, level: Level) -> Iterator[None]:
        """Scope of a loop whose sums are widened at its end, if that is the plan."""
        if level is self.plan.widen:
            for pixel in self.pixels:
                pixel.clear_octets()
        yield
        if level is self.plan.widen:
            for pixel in self.pixels:
                pixel.widen()
        if level is self.plan.flush:
            for pixel in self.pixels:
                pixel.flush(self.factor)


def _doubles(coefficients: Sequence[int]) -> bool:
    """Whether each coefficient is the one before times 1, 2, 4 or 8, from 1 on."""
    ratios = [high / low for low, high in itertools.pairwise(coefficients)]
    return coefficients[0] == 1 and all(r in (1, 2, 4, 8) for r in ratios)


def groups_of(layer: ConvLayer, slots: int) -> int:
    """Tables per pixel and group of channels: whole vectors of them, an even number."""
    return -(-layer.weight_codes.shape[1] // (2 * GROUP * slots)) * 2 * slots


def lut_weights(
    layer: ConvLayer, block: int, slots: int, inverted: np.ndarray | None = None
) -> np.ndarray:
    """Weight indices: those of two neighbouring vectors of tables to a byte, low nibble first.

    A byte lane belongs to a slot, and in it to an output channel, so ordered that the first half of
    the block's channels lies in even bytes.

    Returns
    -------
    ndarray of uint8
        Shape (blocks, weight_bits, kernel_h, kernel_w, steps / 2, vectors, slots * 16).
    """
    out_channels, _, kernel_h, kernel_w = layer.weight_codes.shape
    count, bits = groups_of(layer, slots), layer.weight_bits
    bit = weight_bits_of(layer, count * GROUP, inverted)  # m, o, c, i, j
    bit = bit.reshape(bits, out_channels, count, GROUP, kernel_h, kernel_w)
    index = np.tensordot(bit, 1 << np.arange(GROUP), axes=(3, 0)).astype(np.uint8)
    index = by_block(np.moveaxis(index, 1, -1), layer, block)  # m, group, i, j, o
    index = index.reshape(bits, count // (2 * slots), 2, slots, kernel_h, kernel_w, -1)
    octet = index[:, :, 0] | index[:, :, 1] << 4  # m, step / 2, slot, i, j, o
    blocks = layer.geometry.groups * padded_blocks(layer, block)
    # o = block, half, vector, pair
    octet = octet.reshape(*octet.shape[:5], blocks, 2, block // TABLE, TABLE // 2)
    octet = octet.transpose(5, 0, 3, 4, 1, 7, 2, 8, 6)
    return np.ascontiguousarray(octet.reshape(*octet.shape[:6], -1))
