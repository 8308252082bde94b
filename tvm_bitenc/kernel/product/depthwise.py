"""Depthwise convolution: every channel by itself, channels side by side in lanes."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...encoding import WORD_BITS
from ...layer import ConvLayer
from ..accumulator import AccumulatorTerms
from ..contract import Sums, TileContext
from ..isa import Isa
from ..nest.geometry import by_block, padded_width
from ..nest.tile import Tile
from ..tir import Expr, Register, constant, load, vector
from ..transpose import unpack_codes
from .pixelwise import PixelCodes, PixelwiseProduct

MAX_WORD = 32767
MAX_BYTE = 255
MAX_SUM = 2**30 - 1  # Accumulators hold twice a sum.


def is_depthwise(layer: ConvLayer) -> bool:
    """Whether each output channel reads one input channel, the one of its number."""
    groups = layer.geometry.groups
    return groups > 1 and layer.input_shape[3] == groups == layer.out_channels


def seen_as_one_group(layer: ConvLayer) -> ConvLayer:
    """Return the layer as the loop nest and epilogues see it: output channels in one group."""
    return replace(layer, geometry=replace(layer.geometry, groups=1))


class Depthwise(PixelwiseProduct[Isa]):
    """Product of codes and weights lane by lane, in int16 where it can't overflow, else in int32.

    With codes u and the integers of the weights w, ``acc = 2 sum(u w) + e sum(w)``, where e is the
    integer of code 0 and the last sum runs over taps inside the image.

    Parameters
    ----------
    layer : ConvLayer
        As `seen_as_one_group` returns it.
    isa : Isa
    tile : Tile
    """

    name = "depthwise"

    def __init__(self, layer: ConvLayer, isa: Isa, tile: Tile):
        super().__init__(layer, isa, tile)
        self.top = sum(layer.geometry.act_coefficients)
        self.factor = 1  # Of the weights that are multiplied.

    @staticmethod
    def applies(layer: ConvLayer, _isa: Isa) -> bool:
        """Whether it sums products, codes fit unsigned bytes, and accumulators 32 bits."""
        coefficients = layer.geometry.act_coefficients
        fits = min(coefficients) > 0 and sum(coefficients) <= MAX_BYTE
        sums_products = is_depthwise(layer) and layer.geometry.is_product
        return sums_products and fits and _bound(layer) <= MAX_SUM

    @staticmethod
    def lanes_of(layer: ConvLayer, isa: Isa) -> int:
        """Channels to a vector."""
        return isa.vector_bytes // np.dtype(sum_dtype(layer)).itemsize

    @staticmethod
    def row_bytes(layer: ConvLayer, _isa: Isa) -> int:
        """Size of a prepared input row."""
        return padded_width(layer) * _padded_channels(layer)

    @cached_property
    def sum_dtype(self) -> str:
        """Type of the sums."""
        return sum_dtype(self.layer)

    @cached_property
    def terms(self) -> AccumulatorTerms:
        """How sums lead to accumulators."""
        layer, bound = self.layer, _bound(self.layer) // self.factor
        zero = layer.geometry.act_offset - self.top
        none = np.zeros(layer.out_channels, np.int64)
        return AccumulatorTerms(zero * layer.integers_inside, 2 * self.factor, none, -bound, bound)

    @property
    def constants(self) -> list[np.ndarray]:
        """Weights, shape (kernel_h, kernel_w, blocks * block)."""
        values = np.moveaxis(self.layer.weight_integers[:, 0], 0, -1)
        return [by_block(values, self.layer, self.block).astype(self.sum_dtype)]

    @property
    def prepared(self) -> tuple[str, int]:
        """Type and number of elements of a prepared pixel."""
        return "uint8", _padded_channels(self.layer)

    def prepare_pixel(self, words: PixelCodes, target: tirx.Buffer, base: Expr) -> None:
        """Unpack or copy the codes of a pixel."""
        unpack_codes(self.layer, self.isa, self.prepared, words, target, base)

    def sums(self, tile: TileContext) -> list[Sums]:
        """Sums of every pixel of a tile."""
        zero = constant(0, self.sum_dtype, self.lanes)
        totals = [
            [Register(self.sum_dtype, self.lanes, zero) for _ in range(self.tile.vectors)]
            for _ in range(tile.pixels)
        ]
        channels = tile.blocks * self.block
        with T.grid(*self.layer.kernel_size) as (i, j):
            for v in range(self.tile.vectors):
                first = tile.block * self.block + v * self.lanes
                tap = (i * self.layer.kernel_size[1] + j) * channels
                weight = T.Bind(load(tile.memory.product_constants[0], tap + first, self.lanes))
                for p in range(tile.pixels):
                    start = tile.address(i, j, p) + first
                    octets = load(tile.prepared.buffer, start, self.lanes)
                    codes = tirx.Cast(vector(self.sum_dtype, self.lanes), octets)
                    totals[p][v].add(codes * weight)
        return [[T.Bind(total.get()) for total in pixel] for pixel in totals]


def _bound(layer: ConvLayer) -> int:
    """Largest absolute sum of codes times weights."""
    magnitude = np.abs(layer.weight_integers).sum(axis=(1, 2, 3), dtype=np.int64).max()
    return int(magnitude) * sum(layer.geometry.act_coefficients)


def sum_dtype(layer: ConvLayer) -> str:
    """Type that sums fit."""
    return "int16" if _bound(layer) < MAX_WORD else "int32"


def _padded_channels(layer: ConvLayer) -> int:
    return -(-layer.out_channels // WORD_BITS) * WORD_BITS
