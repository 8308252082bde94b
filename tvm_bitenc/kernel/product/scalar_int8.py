r"""Products of codes on CPUs without vectors: one by one, or two in an instruction.

Pixels of a tile share the weights of one output channel after another. Where the CPU multiplies
pairs of 16 bits, codes lie in pairs, and four weights in a word, in the order 0 2 1 3: bytes 0 and
2, and then 1 and 3, are extended to pairs by one instruction each. Where words have 64 bits, a
product is one of two output channels, and so are sums, which fit 32 bits each:

.. math:: u (w_0 + 2^{32} w_1) = u w_0 + 2^{32} u w_1
"""

from __future__ import annotations

from typing import cast

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...layer import ConvLayer
from ..contract import Sums, TileContext
from ..isa import Isa
from ..nest.geometry import by_block, padded_blocks, padded_width
from ..nest.pixel_words import PixelWords
from ..nest.tile import Tile, divisors
from ..scalar import Scalar
from ..tir import Expr, Register, load
from .int8 import QUAD, Int8, Step
from .pixelwise import PixelCodes

HALF_WORD = 32  # Bits of a word of a plane that are unpacked together.
WIDE = 8  # Bytes of a word that holds two sums.
MAX_UNROLL = 4  # Steps written out one after another.


class ScalarInt8(Int8[Scalar]):
    """Product of codes and bytes.

    Parameters
    ----------
    layer : ConvLayer
    isa : Scalar
    tile : Tile
    """

    def __init__(self, layer: ConvLayer, isa: Scalar, tile: Tile):
        super().__init__(layer, isa, tile)
        self.depth = _depth(layer, isa)
        self.together = 2 if isa.vector_bytes == WIDE else 1  # Output channels of a product.
        self.sums_in = "int64" if self.together > 1 else "int32"
        self.steps = -(-layer.weight_codes.shape[1] // self.depth)

    @staticmethod
    def lanes_of(_layer: ConvLayer, _isa: Isa) -> int:
        """Output channels are taken one by one."""
        return 1

    @staticmethod
    def row_bytes(layer: ConvLayer, isa: Isa) -> int:
        """Size of a prepared input row."""
        depth = _depth(layer, isa)
        channels = -(-layer.weight_codes.shape[1] // depth) * depth * layer.geometry.groups
        return padded_width(layer) * channels * (1 if depth == 1 else 2)

    def _method(self) -> str:
        return "pairs" if self.isa.has_pairs else "single"

    @property
    def constants(self) -> list[np.ndarray]:
        """Weights, shape (block, channel, kernel_h, kernel_w, step).

        They are bytes, words of four, or words of two channels.
        """
        values = np.moveaxis(self.weights.values, 0, -1)  # c, i, j, o
        missing = self.steps * self.depth - len(values)
        values = by_block(np.pad(values, [(0, missing), *[(0, 0)] * 3]), self.layer, self.block)
        blocks = self.layer.geometry.groups * padded_blocks(self.layer, self.block)
        shape = self.steps, self.depth, *self.layer.kernel_size, blocks, self.block
        values = values.reshape(shape).transpose(4, 5, 2, 3, 0, 1)
        if self.together > 1:
            low, high = (values[:, i::2, ..., 0].astype(np.int64) for i in range(2))
            return [np.ascontiguousarray(low + (high << HALF_WORD))]
        if self.depth == 1:
            return [np.ascontiguousarray(values[..., 0])]
        return [np.ascontiguousarray(values[..., [0, 2, 1, 3]]).view("<i4")[..., 0]]

    @property
    def prepared(self) -> tuple[str, int]:
        """Type and number of elements of a prepared pixel: codes, or pairs of them."""
        channels = self.layer.geometry.groups * self.steps * self.depth
        return ("uint8", channels) if self.depth == 1 else ("int32", channels // 2)

    def prepare_pixel(self, words: PixelCodes, target: tirx.Buffer, base: Expr) -> None:
        """Unpack the codes of a pixel, half a word of each plane at a time."""
        assert isinstance(words, PixelWords)  # No bytes are read where there is no dot product.
        together = 1 if self.depth == 1 else 2
        dtype, size = self.prepared
        if words.source is None:
            with T.serial(0, size) as number:
                T.buffer_store(target, tirx.const(0, dtype), [base + number])
            return
        whole, rest = divmod(size * together, HALF_WORD)
        if whole:
            with T.serial(0, whole) as number:
                start = base + number * (HALF_WORD // together)
                self._unpack(words, number, target, start, HALF_WORD // together)
        if rest:
            start = base + whole * (HALF_WORD // together)
            self._unpack(words, tirx.const(whole, "int32"), target, start, rest // together)

    def _unpack(
        self, words: PixelWords, number: Expr, target: tirx.Buffer, start: Expr, count: int
    ) -> None:
        """Unpack the first codes, or pairs, of one half of the words of all planes."""
        assert words.source is not None
        planes = []
        for k in range(self.layer.act_bits):
            word = words.source[words.start + k * words.per_plane + number // 2]
            half = word >> tirx.Cast("uint64", number % 2 * HALF_WORD)
            planes.append(T.Bind(tirx.Cast("uint32", half)))
        with T.serial(0, count) as place:
            if self.depth == 1:
                value = tirx.Cast("uint8", self._code(planes, place))
            else:
                low, high = (self._code(planes, place * 2 + i) for i in range(2))
                value = low | high << 16
            T.buffer_store(target, value, [start + place])

    def _code(self, planes: list[Expr], bit: Expr) -> Expr:
        """Code of one channel, int32."""
        total = None
        for kappa, plane in zip(self.layer.geometry.act_coefficients, planes):
            term = tirx.Cast("int32", plane >> tirx.Cast("uint32", bit) & 1) * kappa
            total = term if total is None else total + term
        return total

    def sums(self, tile: TileContext) -> list[Sums]:
        """Sums of every pixel of a tile, in one vector of int32."""
        found = [T.alloc_buffer((self.block,), "int32") for _ in range(tile.pixels)]
        step = max(d for d in divisors(self.steps) if d <= (self.tile.unroll or MAX_UNROLL))
        rows = self.block // self.together
        with T.serial(0, rows) as channel:
            totals = [Register(self.sums_in, 1, tirx.const(0, self.sums_in)) for _ in found]
            number = tile.block * rows + channel
            with T.grid(*self.layer.kernel_size, self.steps // step) as (i, j, part):
                for t in range(step):
                    self._add(tile, totals, number, (i, j, part * step + t))
            for sums, total in zip(found, totals):
                self._store(sums, T.Bind(total.get()), channel)
        return [[T.Bind(load(sums, 0, self.block))] for sums in found]

    def _store(self, sums: tirx.Buffer, total: Expr, channel: Expr) -> None:
        """Write the sum of a channel, or of two."""
        low = tirx.Cast("int32", total)
        T.buffer_store(sums, low, [channel * self.together])
        if self.together > 1:
            rest = (total - tirx.Cast(self.sums_in, low)) >> HALF_WORD
            T.buffer_store(sums, tirx.Cast("int32", rest), [channel * 2 + 1])

    def _add(self, tile: TileContext, totals: list[Register], channel: Expr, at: Step) -> None:
        """Add the products of a few input channels under one tap."""
        (i, j, step), (kernel_h, kernel_w) = at, self.layer.kernel_size
        place = ((channel * kernel_h + i) * kernel_w + j) * self.steps + step
        stored = T.Bind(tile.memory.product_constants[0][place])
        if self.depth > 1:
            weights = [T.Bind(self.isa.halves_of_bytes(stored, odd)) for odd in (False, True)]
        else:
            weights = [T.Bind(tirx.Cast(self.sums_in, stored))]
        size = len(weights)  # Elements of a prepared pixel to a step.
        for p, total in enumerate(totals):
            start = tile.address(i, j, p) + (tile.group * self.steps + step) * size
            for half, weight in enumerate(weights):
                act = tile.prepared.buffer[start + half]
                if self.depth > 1:
                    total.set(self.isa.multiply_add_halves(total.get(), act, weight))
                else:
                    total.add(tirx.Cast(self.sums_in, act) * weight)


def _depth(layer: ConvLayer, isa: Isa) -> int:
    """Input channels to a step: one where most of four would be padding."""
    fills = layer.weight_codes.shape[1] >= QUAD // 2
    return QUAD if fills and cast(Scalar, isa).has_pairs else 1
