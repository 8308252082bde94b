r"""Sums by products of bytes: for bits at which neither branches nor tables win.

With codes u of the activations, and the integers of the weights written as g w + b so that w fits
a signed byte,

.. math:: acc = \sum (2u + e)(g w + b) = 2 g \sum u w + 2 b \sum u + e \sum (g w + b)

where e is the integer of code 0. Padding holds code 0, and the last sum runs over taps inside.
Codes that are too large for signed bytes are taken less 128: then :math:`128 \sum w` is added to
:math:`\sum u w`, over all taps, for padding holds -128.

Where many weights of few bits wait for few pixels, memory is what is waited for: two, four or eight
of them share a byte then, from which an instruction takes each, with its sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...layer import ConvLayer
from ..accumulator import AccumulatorTerms
from ..contract import IsaT, Sums, TileContext
from ..isa import Isa
from ..nest.geometry import by_block, padded_blocks, padded_width
from ..nest.tile import Tile, divisors
from ..tir import Expr, Register, constant, load, reinterpret, splat, vector
from ..transpose import unpack_codes
from .pixelwise import PixelCodes, PixelwiseProduct

QUAD = 4  # Products that one 32-bit lane sums.
MAX_BYTE = 127
BYTE_BITS = 8
SHIFT = 128
DEPTHS = {"words": 2, "pairs": 2, "matrix": 8}
MAX_WORD = 32767
MAX_UNROLL = 4
FEW_PIXELS = 4  # To which weights are brought from memory.
FAR_BYTES = 1 << 20  # Of weights that the second-level cache doesn't hold.


@dataclass(frozen=True, eq=False)
class ByteWeights:
    """Weights as signed bytes.

    Parameters
    ----------
    values : ndarray of int8, shape (out_channels, in_channels / groups, kernel_h, kernel_w)
    factor : int
        g.
    shift : ndarray of int64, shape (out_channels,)
        b.
    """

    values: np.ndarray
    factor: int
    shift: np.ndarray


@lru_cache(maxsize=2)  # Asked twice: whether there are any, and for them; or for smaller ones.
def byte_weights(layer: ConvLayer, most: int) -> ByteWeights | None:
    """Write weights as signed bytes of at most `most`; None if they don't fit."""
    integers = layer.weight_integers
    low, high = integers.min(), integers.max()
    if -most - 1 <= low and high <= most:
        return ByteWeights(integers.astype(np.int8), 1, np.zeros(len(integers), np.int64))
    odd = integers[:, 0, 0, 0].astype(np.int64) & 1
    if not -most - 1 <= low >> 1 <= high >> 1 <= most or np.any(
        (integers & 1) != odd[:, None, None, None]
    ):
        return None
    # All of a channel are even, or all are odd: halves are whole, rounded down.
    return ByteWeights((integers >> 1).astype(np.int8), 2, odd)


Totals = list[list[Register]]  # By pixel, and vector of output channels.
Step = tuple[Expr, Expr, Expr]  # Row and column of the window, and a step of the channels.


class Int8(PixelwiseProduct[IsaT]):
    """Product of bytes.

    Output channels lie in 32-bit lanes, four input channels deep. Three ways to sum, by what the
    instruction set has and what can't overflow: four products at once into 32 bits; two at once
    into 16 bits, widened late; or two 16-bit products at once into 32 bits.

    Parameters
    ----------
    layer : ConvLayer
    isa : Isa
    tile : Tile
    """

    name = "int8"
    reads_bytes = True

    def __init__(self, layer: ConvLayer, isa: IsaT, tile: Tile):
        super().__init__(layer, isa, tile)
        self.weights, self.per_byte = self._weights_and_share()
        self.top = sum(layer.geometry.act_coefficients)
        self.shift = SHIFT if self.top > isa.most_code else 0
        self.method = self._method()
        if self.method == "words":
            self.shift = 0
        self.depth = DEPTHS.get(self.method, QUAD)  # Input channels to a lane.
        steps = -(-layer.weight_codes.shape[1] // self.depth)
        self.steps = -(-steps // self.per_byte) * self.per_byte

    @staticmethod
    def applies(layer: ConvLayer, isa: Isa) -> bool:
        """Whether products of bytes make it, and groups of channels start on multiples of four."""
        geometry, per_group = layer.geometry, layer.weight_codes.shape[1]
        return (
            geometry.is_product
            and (geometry.groups == 1 or per_group % QUAD == 0)
            and min(geometry.act_coefficients) > 0
            and sum(geometry.act_coefficients) <= 255
            and byte_weights(layer, MAX_BYTE) is not None
        )

    @staticmethod
    def lanes_of(_layer: ConvLayer, isa: Isa) -> int:
        """Output channels to a vector."""
        return isa.vector_bytes // QUAD

    @staticmethod
    def row_bytes(layer: ConvLayer, isa: Isa) -> int:
        """Size of a prepared input row."""
        steps = -(-layer.weight_codes.shape[1] // QUAD)
        return padded_width(layer) * layer.geometry.groups * steps * QUAD * 2

    @property
    def sum_dtype(self) -> str:
        """Type of the sums."""
        return "int32"

    def _method(self) -> str:
        """``dot``, ``bytes`` or ``words``: the first that can't overflow."""
        if self.isa.has_dot:
            return "dot"
        return "bytes" if self._widen_after else "words"

    def _weights_and_share(self) -> tuple[ByteWeights, int]:
        """Weights, and how many of them share a byte."""
        batch, height, width, _ = self.layer.input_shape
        is_far = self.layer.weight_codes.size >= FAR_BYTES and batch * height * width <= FEW_PIXELS
        shares = [8, 4, 2] if is_far and self.isa.has_dot and self.isa.has_bit_matrices else []
        for per_byte in shares:
            if BYTE_BITS // per_byte >= self.layer.weight_bits:
                weights = byte_weights(self.layer, (1 << (BYTE_BITS // per_byte - 1)) - 1)
                if weights is not None:
                    return weights, per_byte
        return _weights(self.layer), 1

    @cached_property
    def late(self) -> int:
        """Steps whose pairs of products 16 bits sum."""
        return max(d for d in divisors(self.steps) if d <= self._widen_after)

    @cached_property
    def _widen_after(self) -> int:
        """Pairs of products that 16 bits can sum."""
        pair = 2 * self._largest * int(np.abs(self.weights.values.astype(int)).max())
        return MAX_WORD // max(pair, 1)

    @property
    def _largest(self) -> int:
        """Largest magnitude of a code as it is multiplied."""
        return max(self.top - self.shift, self.shift)

    @cached_property
    def terms(self) -> AccumulatorTerms:
        """How sums lead to accumulators."""
        geometry, weights = self.layer.geometry, self.weights
        zero = geometry.act_offset - self.top
        values = weights.values.reshape(len(weights.values), -1)
        magnitudes = np.abs(values.astype(np.int16)).sum(axis=1, dtype=np.int64)
        bound = self._largest * int(magnitudes.max())
        constant = zero * self.layer.integers_inside
        if self.shift:
            total = values.sum(axis=1, dtype=np.int64)
            constant = constant + 2 * weights.factor * self.shift * total
        return AccumulatorTerms(constant, 2 * weights.factor, 2 * weights.shift, -bound, bound)

    @property
    def constants(self) -> list[np.ndarray]:
        """Weights, int8, shape (blocks, kernel_h, kernel_w, steps, vectors, lanes, depth).

        Those of neighbouring steps share bytes, see `per_byte`, the first in the lowest bits.
        """
        values = np.moveaxis(self.weights.values, 0, -1)  # c, i, j, o
        missing = self.steps * self.depth - len(values)
        values = by_block(np.pad(values, [(0, missing), *[(0, 0)] * 3]), self.layer, self.block)
        blocks = self.layer.geometry.groups * padded_blocks(self.layer, self.block)
        values = values.reshape(
            self.steps, self.depth, *self.layer.kernel_size, blocks, self.tile.vectors, self.lanes
        )
        values = np.ascontiguousarray(values.transpose(4, 2, 3, 0, 5, 6, 1))
        return [_packed(values, self.per_byte, axis=3)]

    @property
    def prepared(self) -> tuple[str, int]:
        """Type and number of elements of a prepared pixel."""
        size = self.layer.geometry.groups * self.steps * self.depth
        return ("int16" if self.method == "words" else "uint8"), size

    def prepare_pixel(self, words: PixelCodes, target: tirx.Buffer, base: Expr) -> None:
        """Unpack or copy the codes of a pixel."""
        unpack_codes(self.layer, self.isa, self.prepared, words, target, base, self.shift)

    def sums(self, tile: TileContext) -> list[Sums]:
        """Sums of every pixel of a tile, in vectors of int32."""
        totals = [[self._zero() for _ in range(self.tile.vectors)] for _ in range(tile.pixels)]
        if self.method == "bytes":
            self._sum_late(tile, totals)
        else:
            groups, most = self.steps // self.per_byte, self.tile.unroll or MAX_UNROLL
            size = max(d for d in divisors(groups) if d == 1 or d * self.per_byte <= most)
            with T.grid(*self.layer.kernel_size, groups // size) as (i, j, part):
                for t in range(size):
                    self._add_step(tile, totals, (i, j, part * size + t))
        return [[T.Bind(total.get()) for total in pixel] for pixel in totals]

    def _zero(self, dtype: str = "int32") -> Register:
        register = Register(dtype, self.lanes * (1 if dtype == "int32" else 2))
        register.clear()
        return register

    def _sum_late(self, tile: TileContext, totals: Totals) -> None:
        """Sum pairs in 16 bits over as many steps as fit, then widen."""
        late = self.late
        step = max(d for d in divisors(late) if d <= (self.tile.unroll or MAX_UNROLL))
        one = constant(1, "int16", self.lanes * 2)
        with T.grid(*self.layer.kernel_size, self.steps // late) as (i, j, outer):
            pairs = [[self._zero("int16") for _ in pixel] for pixel in totals]
            with T.serial(0, late // step) as inner:
                for t in range(step):
                    number = (outer * (late // step) + inner) * step + t
                    self._add_step(tile, pairs, (i, j, number))
            for pixel, narrow in zip(totals, pairs):
                for total, pair in zip(pixel, narrow):
                    total.add(self.isa.multiply_add_words(pair.get(), one))

    def _add_step(self, tile: TileContext, totals: Totals, at: Step) -> None:
        """Add the products of the input channels under one tap whose weights share bytes."""
        (i, j, number), (kernel_h, kernel_w) = at, self.layer.kernel_size
        size, vectors = self.lanes * self.depth, self.tile.vectors
        groups = self.steps // self.per_byte
        base = (((tile.block * kernel_h + i) * kernel_w + j) * groups + number) * vectors * size
        places = [base + v * size for v in range(vectors)]
        octets = [T.Bind(load(tile.memory.product_constants[0], x, size)) for x in places]
        if self.isa.has_dot:  # Else weights aren't needed so fast that they are waited for.
            tile.prefetch_next(places, kernel_h * kernel_w * groups * vectors * size)
        for field in range(self.per_byte):
            weights = [T.Bind(self._weight(value, field)) for value in octets]
            step = tile.group * self.steps + number * self.per_byte + field
            for p in range(tile.pixels):
                start = tile.address(i, j, p) + step * self.depth
                act = self._repeated(load(tile.prepared.buffer, start, self.depth))
                for total, weight in zip(totals[p], weights):
                    self._multiply(total, act, weight)

    def _multiply(self, total: Register, act: Expr, weight: Expr) -> None:
        """Add the products of one vector."""
        if self.method == "dot":
            total.set(self.isa.dot(total.get(), act, weight))
        elif self.method == "bytes":
            total.add(self.isa.multiply_add_bytes(act, weight))
        else:
            total.add(self.isa.multiply_add_words(act, weight))

    def _weight(self, octets: Expr, field: int = 0) -> Expr:
        """Weights of a vector of bytes, of those that share one the `field`-th."""
        if self.per_byte > 1:
            bits = BYTE_BITS // self.per_byte
            chosen = [field * bits + min(bit, bits - 1) for bit in range(BYTE_BITS)]
            return self.isa.select_bits(octets, chosen)
        if self.method != "words":
            return octets
        return tirx.Cast(vector("int16", self.lanes * self.depth), octets)

    def _repeated(self, codes: Expr) -> Expr:
        """Codes of neighbouring channels in every lane."""
        repeated = splat(reinterpret("int32", codes), self.lanes)
        dtype = self.prepared[0]
        return T.Bind(reinterpret(vector(dtype, self.lanes * self.depth), repeated))


def _packed(values: np.ndarray, per_byte: int, axis: int) -> np.ndarray:
    """Put so many neighbours of an axis into a byte each, the first into the lowest bits."""
    if per_byte == 1:
        return values
    bits = BYTE_BITS // per_byte
    fields = np.moveaxis(values, axis, 0).view(np.uint8) & ((1 << bits) - 1)
    parts = [fields[field::per_byte] << np.uint8(field * bits) for field in range(per_byte)]
    octets = np.moveaxis(np.bitwise_or.reduce(parts), 0, axis)
    return np.ascontiguousarray(octets).view(np.int8)


def _weights(layer: ConvLayer) -> ByteWeights:
    """Weights of a layer that `Int8` applies to."""
    weights = byte_weights(layer, MAX_BYTE)
    assert weights is not None
    return weights
