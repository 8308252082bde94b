r"""Sums of branches where a vector's bits are counted byte by byte, in one instruction.

Bytes add up counts until they are full; then all vectors of eight output channels are added up
pair by pair, which leaves one vector of sixteen bits a channel. Two neighbouring words of a channel
fill a 128-bit vector; where the words are odd in number, two output channels do.

Two by two planes take three counts, see `counts.py`. With :math:`x = a_1 \oplus w_1`, the mixed one
counts :math:`x \oplus ((a_0 \oplus a_1) \wedge (w_0 \oplus w_1))`. The last term is stored as one
more plane of the weights.
"""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ..te.conv_layer import ConvLayer
from .counts import Square
from .isa import Isa
from .tir import Register, constant, load, reinterpret, splat, vector
from .window import Tile, divisors
from .xnor import MAX_BYTE_COUNTS, OCTET, Xnor, counts_per_factor

PAIR = 2  # Words of a vector.
AT_ONCE = 4  # Vectors of channels: as many as give one vector of sums.
MAX_UNROLL = 12  # Vectors of weights written out one after another, for each channel.
MAX_WORD_SUM = 65534  # Thresholds go one beyond.
MAX_BYTE = 255


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
        self.depth = PAIR // self.lanes
        self.steps = layer.words // self.depth  # Vectors under a tap.
        self.squares = sorted({c.weight for c in self.counts if isinstance(c, Square)})
        self.columns = layer.weight_bits + len(self.squares)
        self.at_once = min(AT_ONCE, tile.vectors)  # Others would need more registers.
        self.limit = MAX_BYTE_COUNTS // counts_per_factor(layer)

    @staticmethod
    def applies(layer: ConvLayer, isa: Isa) -> bool:
        """Whether every group of channels starts a word, and counts fit where they are added up."""
        return Xnor.applies(layer, isa)

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
        """Weights: (group, block, part, kernel_h, kernel_w, step, plane, channel, word)."""
        (weights,) = super().constants
        outer = weights.shape[:-3]
        differing = [weights[..., m, :] ^ weights[..., m + 1, :] for m in self.squares]
        planes = np.stack([*np.moveaxis(weights, -2, 0), *differing], axis=-2)
        at_once = self.at_once * self.lanes
        planes = planes.reshape(*outer, self.steps, self.depth, self.columns, -1, at_once)
        planes = np.moveaxis(np.moveaxis(planes, -2, 2), -3, -1)
        # Were the number of other rows known, LLVM would write them out, where paired loads don't
        # reach.
        return [np.ascontiguousarray(planes), np.array([self.layer.kernel_size[0] - 1], np.int32)]

    def sums(self, tile) -> list[list]:
        """Sums of every pixel of a tile, in vectors of eight channels."""
        parts = [
            self._sums_of_part(tile, range(v, v + self.at_once))
            for v in range(0, self.tile.vectors, self.at_once)
        ]
        found = []
        for values in zip(*parts):
            while len(values) > self.block // OCTET:
                values = self._neighbours_added(values)
            found.append(list(values))
        return found

    def _sums_of_part(self, tile, vectors: range) -> list:
        """Sums of some vectors of channels under every pixel: one vector of eight lanes each."""
        totals = [self._cleared(self.sum_dtype, OCTET) for _ in range(tile.pixels)]
        (kernel_h, kernel_w), steps = self.layer.kernel_size, self.steps
        if kernel_h * kernel_w * steps <= self.limit:
            with self._counting(totals, vectors, kernel_h * kernel_w * steps) as octets:
                self._count_row(tile, octets, 0)  # Its counts are the first: nothing is cleared.
                with T.serial(0, tile.constants[1][0]) as i:
                    self._count_row(tile, octets, i + 1)
        elif kernel_w * steps <= self.limit:
            row = kernel_w * steps
            with T.serial(0, kernel_h) as i, self._counting(totals, vectors, row) as octets:
                self._count_row(tile, octets, i)
        else:
            late = max(d for d in divisors(steps) if d <= self.limit)
            with (
                T.grid(kernel_h, kernel_w, steps // late) as (i, j, part),
                self._counting(totals, vectors, late) as octets,
            ):
                self._count_steps(tile, octets, i, j, part * late, late)
        return [T.Bind(total.get()) for total in totals]

    @contextmanager
    def _counting(self, totals, vectors: range, counts: int):
        """Give registers of bytes by pixel, vector and coefficient; add them to totals at the end.

        Parameters
        ----------
        counts : int
            Vectors that each register counts.
        """
        octets = [
            {
                v: {f: self._cleared("uint8", self.isa.vector_bytes) for f in self.factors}
                for v in vectors
            }
            for _ in totals
        ]
        yield octets
        most = 8 * counts * counts_per_factor(self.layer)
        for total, narrow in zip(totals, octets):
            for factor in self.factors:
                value = self._joined([narrow[v][factor].get() for v in vectors], most)
                self._add(total, value, factor)

    def _cleared(self, dtype: str, lanes: int) -> Register:
        register = Register(dtype, lanes)
        register.clear()
        return register

    def _joined(self, octets: list, most: int):
        """Sums of eight lanes, uint16, from bytes of at most `most`."""
        values = [T.Bind(value) for value in octets]
        while len(values) > 1 and 2 * most <= MAX_BYTE:
            values, most = self._neighbours_added(values), 2 * most
        values = [T.Bind(self.isa.add_pairs_of_bytes(value)) for value in values]
        while len(values) > 1:
            values = self._neighbours_added(values)
        return values[0]

    def _neighbours_added(self, values: list) -> list:
        return [T.Bind(self.isa.add_neighbours(*pair)) for pair in zip(values[::2], values[1::2])]

    def _add(self, total: Register, value, factor: int) -> None:
        if not self.is_narrow:
            value = tirx.Cast(vector("int32", OCTET), value)
        if factor != 1:
            value = value * constant(factor, total.dtype, OCTET)
        total.add(value)

    def _count_row(self, tile, octets, i) -> None:
        """Count under a row of taps."""
        kernel_w = self.layer.kernel_size[1]
        if kernel_w * self.steps <= (self.tile.unroll or MAX_UNROLL):
            # Neighbouring taps read the same pixels: each is loaded once.
            for j in range(kernel_w):
                self._count_steps(tile, octets, i, j, 0, self.steps)
        else:
            with T.serial(0, kernel_w) as j:
                self._count_steps(tile, octets, i, j, 0, self.steps)

    def _count_steps(self, tile, octets, i, j, first, count: int) -> None:
        """Count neighbouring vectors under one tap."""
        step = max(d for d in divisors(count) if d <= (self.tile.unroll or MAX_UNROLL))
        with T.serial(0, count // step) as outer:
            for t in range(step):
                self._count_step(tile, octets, i, j, first + outer * step + t)

    def _count_step(self, tile, octets, i, j, step) -> None:
        """Count one vector of every branch under one tap."""
        (kernel_h, kernel_w), n = self.layer.kernel_size, PAIR
        part = tile.block * (self.tile.vectors // self.at_once) + min(octets[0]) // self.at_once
        tap = ((part * kernel_h + i) * kernel_w + j) * self.steps + step
        base = T.Bind(tap * (self.columns * self.at_once * n))
        acts = [
            self._acts(tile, tile.address(i, j, p) + tile.group * self.layer.words, step)
            for p in range(tile.pixels)
        ]
        squares = {c.act for c in self.counts if isinstance(c, Square)}
        differing = [{k: T.Bind(a[k] ^ a[k + 1]) for k in squares} for a in acts]
        # Weights take part one vector after another: registers hold the pixels.
        for place, v in enumerate(octets[0]):
            starts = [base + (m * self.at_once + place) * n for m in range(self.columns)]
            planes = [T.Bind(load(tile.constants[0], start, n)) for start in starts]
            for p in range(tile.pixels):
                for count in self.counts:
                    for factor, bits in self._bits(count, acts[p], differing[p], planes):
                        value = reinterpret(vector("uint8", self.isa.vector_bytes), bits)
                        register = octets[p][v][factor]
                        count_of = self.isa.popcount_bytes(value)
                        register.set(self.isa.add_in_place(register.get(), count_of))

    def _acts(self, tile, pixel, step) -> list:
        """Planes of a pixel, one vector of each."""
        starts = [pixel + k * self.words + step * self.depth for k in range(self.layer.act_bits)]
        if self.depth == PAIR:
            return [T.Bind(load(tile.prepared, start, PAIR)) for start in starts]
        return [T.Bind(splat(tile.prepared[start], PAIR)) for start in starts]

    def _bits(self, count, acts: list, differing: dict, planes: list) -> list[tuple]:
        """Factors of a count, each with the bits that are counted."""
        low = T.Bind(acts[count.act] ^ planes[count.weight])
        if not isinstance(count, Square):
            return [(count.factor, low)]
        high = T.Bind(acts[count.act + 1] ^ planes[count.weight + 1])
        column = planes[self.layer.weight_bits + self.squares.index(count.weight)]
        mixed = high ^ (differing[count.act] & column)
        found = [(count.high, high), (count.low, low), (count.mixed, mixed)]
        return [(factor, bits) for factor, bits in found if factor]
