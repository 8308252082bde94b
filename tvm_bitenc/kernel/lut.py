r"""Sums of branches by looking up sums of four activations.

For every four input channels of a pixel a table holds, for each of the 16 patterns w of a weight
plane, how much the planes of the activations differ from it:

.. math:: t[w] = \sum_k \kappa_k\,\mathrm{popcount}(a_k \oplus w)

A table is made once per pixel and serves all taps and all output channels, which lie in bytes of
a vector: one byte shuffle looks up one table for as many output channels as a vector has bytes.
The cost grows with the weight bits alone. Bytes are summed as long as they can't overflow, then in
pairs of bytes as long as those can't, then in int32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ..encoding import planes
from ..te.conv_layer import ConvLayer
from .isa import Isa, nibbles
from .raw import Raw, differing_bits
from .tir import (
    Register,
    constant,
    joined,
    lane_constants,
    load,
    reinterpret,
    splat,
    store,
    vector,
)
from .window import Tile, by_block, divisors, padded_blocks, padded_width

GROUP = 4  # Channels to a table.
TABLE = 16  # Its entries.
GROUPS_PER_WORD = 16
MAX_ENTRY_SUM = 255  # What a byte holds; two look-ups must fit.
MAX_PAIR_SUM = 65535
MAX_UNROLL = 8  # Look-ups written out one after another.


@dataclass(frozen=True)
class Part:
    """Activation planes that share a table: their entries must fit a byte.

    Parameters
    ----------
    planes : range
    factor : int
        Common factor of their coefficients.
    coefficients : tuple of int
        Without that factor.
    """

    planes: range
    factor: int
    coefficients: tuple[int, ...]

    @property
    def most(self) -> int:
        """Largest entry of a table."""
        return GROUP * sum(self.coefficients)


def parts_of(coefficients: Sequence[int], groups: int) -> list[Part]:
    """Split planes into as few parts as bytes and pairs of bytes allow."""
    start, parts = 0, []
    while start < len(coefficients):
        for stop in range(len(coefficients), start, -1):
            factor = int(np.gcd.reduce(coefficients[start:stop]))
            scaled = tuple(c // factor for c in coefficients[start:stop])
            part = Part(range(start, stop), factor, scaled)
            if 2 * part.most <= MAX_ENTRY_SUM and part.most * groups <= MAX_PAIR_SUM:
                break
        parts.append(part)
        start = stop
    return parts


class Lut:
    """Product by table look-up.

    Parameters
    ----------
    layer : ConvLayer
    isa : Isa
    tile : Tile
    """

    name = "lut"

    def __init__(self, layer: ConvLayer, isa: Isa, tile: Tile):
        self.layer, self.isa, self.tile = layer, isa, tile
        self.lanes = isa.vector_bytes
        self.block = self.lanes * tile.vectors
        self.groups = groups_of(layer)
        self.parts = parts_of(layer.geometry.act_coefficients, self.groups)

    @staticmethod
    def applies(layer: ConvLayer) -> bool:
        """Whether tables don't straddle groups, and each plane is the one below times 2^n."""
        geometry, per_group = layer.geometry, layer.weight_codes.shape[1]
        kappa = geometry.weight_coefficients
        ratios = [high / low for low, high in zip(kappa, kappa[1:])]
        return (
            (geometry.groups == 1 or per_group % (2 * GROUP) == 0)
            and kappa[0] == 1
            and all(r in (1, 2, 4, 8) for r in ratios)
            and min(geometry.act_coefficients) > 0
            and groups_of(layer) * GROUP * max(geometry.act_coefficients) <= MAX_PAIR_SUM
        )

    @cached_property
    def raw(self) -> Raw:
        """Meaning of the sums."""
        return differing_bits(self.layer)

    @property
    def is_narrow(self) -> bool:
        """Whether whole sums fit 16 bits."""
        return len(self.parts) == 1 and self.parts[0].factor == 1 and self.raw.high < MAX_PAIR_SUM

    @property
    def constants(self) -> list[np.ndarray]:
        """Weights: two 4-bit indices to a byte."""
        return [lut_weights(self.layer, self.block, self.lanes)]

    @property
    def prepared(self) -> tuple[str, int]:
        """Type and number of elements of a prepared pixel."""
        return "uint8", len(self.parts) * self._all_groups * TABLE

    @property
    def _all_groups(self) -> int:
        return self.layer.geometry.groups * self.groups

    def prepare_pixel(self, word_of, target, base) -> None:
        """Make the tables of a pixel, as many at once as a vector holds.

        Those behind the last group are overwritten by what follows, so the order counts.
        """
        n = self.isa.vector_bytes
        for p, part in enumerate(self.parts):
            for first in range(0, self._all_groups, GROUPS_PER_WORD):
                word = first // GROUPS_PER_WORD
                # The planes, each as the bytes of one word in every 128-bit block.
                octets = {
                    k: T.Bind(reinterpret(vector("uint8", n), splat(word_of(k, word), n // 8)))
                    for k in part.planes
                }
                for start in range(0, min(GROUPS_PER_WORD, self._all_groups - first), n // TABLE):
                    offset = (p * self._all_groups + first + start) * TABLE
                    store(target, self._tables(octets, part, start), base + offset, n)

    def _tables(self, octets, part: Part, start: int):
        """Tables of neighbouring groups, from the planes of their word."""
        n = self.isa.vector_bytes
        groups = [start + lane // TABLE for lane in range(n)]
        chosen = lane_constants([group // 2 for group in groups], "uint8")
        patterns = lane_constants([lane % TABLE * 17 for lane in range(n)], "uint8")
        mask = lane_constants([0xF0 if group % 2 else 0x0F for group in groups], "uint8")
        total = None
        for k, kappa in reversed(list(zip(part.planes, part.coefficients))):
            spread = self.isa.lookup(octets[k], chosen)
            count = self._popcount((spread ^ patterns) & mask)
            term = count if kappa == 1 else count * constant(kappa, "uint8", n)
            total = term if total is None else total + term
        return T.Bind(total)

    def _popcount(self, value):
        if self.isa.has_popcount:
            return tirx.popcount(value)
        return self.isa.popcount_bytes(value)

    def sums(self, tile) -> list[list]:
        """Sums of every pixel of a tile: uint16 vectors, or int32 where those could overflow."""
        state = [
            [_Sum(self.isa, self.is_narrow) for _ in range(self.tile.vectors)]
            for _ in range(tile.pixels)
        ]
        for p, part in enumerate(self.parts):
            self._add_part(tile, state, p, part)
        return [[half for s in pixel for half in s.halves()] for pixel in state]

    def _add_part(self, tile, state, part_index: int, part: Part) -> None:
        """Add the planes of the weight, highest first, with the sum doubled in between."""
        kernel_h, kernel_w = self.layer.kernel_size
        sums = [s for pixel in state for s in pixel]
        kappa = self.layer.geometry.weight_coefficients
        level = self._flush_level(part)
        for m in reversed(range(len(kappa))):
            if m + 1 < len(kappa):
                for s in sums:
                    s.scale(kappa[m + 1] // kappa[m], len(self.parts) > 1)
            with T.serial(0, kernel_h) as i:
                with T.serial(0, kernel_w) as j:
                    self._look_up_tap(tile, state, part_index, part, m, i, j)
                    if level == "tap":
                        self._flush(sums, part, kappa[m])
                if level == "row":
                    self._flush(sums, part, kappa[m])
            if level == "plane":
                self._flush(sums, part, kappa[m])

    def _flush(self, sums, part: Part, kappa: int) -> None:
        for s in sums:
            s.flush(part.factor * kappa if len(self.parts) > 1 else part.factor)

    def _flush_level(self, part: Part) -> str:
        """How often 16-bit sums go over to int32: never, or behind each plane, row or tap."""
        if self.is_narrow:
            return "never"
        tap = self.groups * part.most
        kernel_h, kernel_w = self.layer.kernel_size
        if tap * kernel_h * kernel_w <= MAX_PAIR_SUM:
            return "plane"
        return "row" if tap * kernel_w <= MAX_PAIR_SUM else "tap"

    def _look_up_tap(self, tile, state, part_index, part: Part, m: int, i, j) -> None:
        """Look up every group of one tap; bytes go over to pairs of bytes as late as they may."""
        limit = MAX_ENTRY_SUM // part.most
        even = [d for d in divisors(self.groups) if d % 2 == 0]
        step = max(d for d in even if d <= min(limit, MAX_UNROLL))
        late = max(d for d in divisors(self.groups // step) if d * step <= limit)
        with T.serial(0, self.groups // step // late) as outer:
            for pixel in state:
                for s in pixel:
                    s.octets.clear()
            with T.serial(0, late) as inner:
                first = (outer * late + inner) * step
                self._look_up(tile, state, part_index, m, i, j, first, step)
            for pixel in state:
                for s in pixel:
                    s.widen()

    def _look_up(self, tile, state, part_index, m, i, j, first, step) -> None:
        kernel_h, kernel_w = self.layer.kernel_size
        weight_bits, n = self.layer.weight_bits, self.lanes
        tap = (((tile.block * weight_bits + m) * kernel_h + i) * kernel_w + j) * (self.groups // 2)
        for t in range(step):
            if t % 2 == 0:
                indices = []
                for v in range(self.tile.vectors):
                    start = ((tap + (first + t) // 2) * self.tile.vectors + v) * n
                    both = T.Bind(load(tile.constants[0], start, n))
                    indices.append([T.Bind(half) for half in nibbles(both, n)])
            for p in range(tile.pixels):
                group = part_index * self._all_groups + tile.group * self.groups + first + t
                start = tile.address(i, j, p) + group * TABLE
                sixteen = load(tile.prepared, start, TABLE)
                table = T.Bind(joined("uint8", TABLE, [sixteen] * (n // TABLE)))
                for v in range(self.tile.vectors):
                    found = self.isa.lookup(table, indices[v][t % 2])
                    state[p][v].octets.add(found)


class _Sum:
    """Sum of one vector of output channels: bytes, pairs of bytes, and int32 if need be.

    A pair of bytes x counts two channels. The sum of x and the sum of its high byte suffice: the
    low one is what is left. So the low half of the lanes' channels lie in even bytes, the high
    half in odd ones.
    """

    def __init__(self, isa: Isa, is_narrow: bool):
        self.lanes = isa.vector_bytes // 2
        self.octets = Register("uint8", isa.vector_bytes)
        self.pairs, self.high = (Register("uint16", self.lanes) for _ in range(2))
        self.wide = [] if is_narrow else [Register("int32", self.lanes) for _ in range(2)]
        for register in (self.pairs, self.high, *self.wide):
            register.clear()

    def widen(self) -> None:
        """Add the bytes to the pairs."""
        both = T.Bind(reinterpret(vector("uint16", self.lanes), self.octets.get()))
        self.pairs.add(both)
        self.high.add(both >> constant(8, "uint16", self.lanes))

    def scale(self, ratio: int, is_done_by_flush: bool) -> None:
        """Multiply the sum of higher planes when the next one begins."""
        if ratio == 1 or is_done_by_flush:
            return
        for register in self.wide or (self.pairs, self.high):
            shift = constant(ratio.bit_length() - 1, register.dtype, self.lanes)
            register.set(register.get() << shift)

    def _split(self) -> list:
        high = T.Bind(self.high.get())
        return [T.Bind(self.pairs.get() - (high << constant(8, "uint16", self.lanes))), high]

    def flush(self, factor: int) -> None:
        """Move the 16-bit sums over to int32."""
        for wide, half in zip(self.wide, self._split()):
            value = tirx.Cast(vector("int32", self.lanes), half)
            wide.add(value if factor == 1 else value * constant(factor, "int32", self.lanes))
        self.pairs.clear()
        self.high.clear()

    def halves(self) -> list:
        """Sums of the low and the high half of the channels."""
        if self.wide:
            return [T.Bind(register.get()) for register in self.wide]
        return self._split()


def groups_of(layer: ConvLayer) -> int:
    """Tables per pixel and group of channels, an even number."""
    per_group = layer.weight_codes.shape[1]
    return -(-per_group // (2 * GROUP)) * 2


def lut_weights(layer: ConvLayer, block: int, lanes: int) -> np.ndarray:
    """Weight indices: two groups of four channels to a byte, low nibble first.

    Output channels are ordered so that the sums of even bytes are those of the first half of a
    vector's channels.

    Returns
    -------
    ndarray of uint8, shape (blocks, weight_bits, kernel_h, kernel_w, groups / 2, vectors, lanes)
    """
    out_channels, per_group, kernel_h, kernel_w = layer.weight_codes.shape
    count, bits = groups_of(layer), layer.weight_bits
    bit = (planes(layer.weight_codes, bits) > 0).astype(np.uint8)  # m, o, c, i, j
    bit = np.pad(bit, [(0, 0), (0, 0), (0, count * GROUP - per_group), (0, 0), (0, 0)])
    bit = bit.reshape(bits, out_channels, count // 2, 2 * GROUP, kernel_h, kernel_w)
    octet = np.tensordot(bit, 1 << np.arange(2 * GROUP), axes=(3, 0)).astype(np.uint8)
    octet = by_block(np.moveaxis(octet, 1, -1), layer, block)  # m, group, i, j, o
    blocks = layer.geometry.groups * padded_blocks(layer, block)
    octet = octet.reshape(bits, count // 2, kernel_h, kernel_w, blocks, -1, 2, lanes // 2)
    octet = octet.transpose(4, 0, 2, 3, 1, 5, 7, 6)
    return np.ascontiguousarray(octet.reshape(*octet.shape[:6], lanes))


def row_bytes(layer: ConvLayer) -> int:
    """Size of a prepared input row."""
    parts = parts_of(layer.geometry.act_coefficients, groups_of(layer))
    groups = layer.geometry.groups * groups_of(layer)
    return padded_width(layer) * len(parts) * groups * TABLE
