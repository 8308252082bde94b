r"""Depthwise convolution by dot products: four taps of a column meet in every 32-bit lane.

Codes of four rows are interleaved, so that an instruction that sums four products of bytes sums
those of four taps of a channel::

    rows        a0 a1 a2 ...   b0 b1 b2 ...   c0 c1 c2 ...   d0 d1 d2 ...     bytes by channel
    columns     a0 b0 c0 d0  a1 b1 c1 d1  a2 b2 c2 d2 ...

A column serves every pixel whose window it lies under. With codes u and the integers of the weights
written as g w, :math:`acc = 2 g \sum u w + e \sum g w`, as in `int8.py`. Where w doesn't fit a
signed byte it is a sum of several, each of which is multiplied.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...layer import ConvLayer
from ..contract import Sums, TileContext
from ..isa import Isa
from ..nest.geometry import by_block
from ..nest.tile import Tile
from ..tir import Expr, Register, Vector, constant, interleaved, load, reinterpret, vector
from ..transpose import unpack_codes
from .depthwise import Depthwise
from .int8 import MAX_BYTE, QUAD, byte_weights
from .pixelwise import PixelCodes

BLOCK = 64  # Channels to a vector of codes, and to four of sums.
LANES = BLOCK // QUAD
MAX_TAPS = 49  # All are written out.
MAX_PARTS = 3  # Of a weight: of 8 bits none has more.


class DotDepthwise(Depthwise):
    """Product of codes and weights, four taps of a channel at a time.

    Parameters
    ----------
    layer : ConvLayer
        As `depthwise.seen_as_one_group` returns it.
    isa : Isa
    tile : Tile
    """

    name = "dot_depthwise"

    def __init__(self, layer: ConvLayer, isa: Isa, tile: Tile):
        super().__init__(layer, isa, tile)
        self.factor, self.parts = byte_parts(layer)
        self.groups = -(-layer.kernel_size[0] // QUAD)  # Of four rows of taps.

    @staticmethod
    def applies(layer: ConvLayer, isa: Isa) -> bool:
        """Whether weights are sums of a few signed bytes, in a layer that `Depthwise` takes."""
        return (
            Depthwise.applies(layer, isa)
            and isa.has_dot
            and isa.vector_bytes == BLOCK
            and sum(layer.geometry.act_coefficients) <= isa.most_code
            and int(np.abs(layer.weight_integers).max()) <= MAX_PARTS * MAX_BYTE
            and layer.kernel_size[0] * layer.kernel_size[1] <= MAX_TAPS
        )

    @staticmethod
    def lanes_of(_layer: ConvLayer, _isa: Isa) -> int:
        """Channels to a vector."""
        return BLOCK

    @cached_property
    def sum_dtype(self) -> str:
        """Type of the sums."""
        return "int32"

    @property
    def constants(self) -> list[np.ndarray]:
        """Weights, int8, shape (blocks, groups of rows, kernel_w, parts, 4, 16, rows)."""
        values = np.moveaxis(self.parts[:, :, 0], 1, -1)  # part, i, j, c
        missing = self.groups * QUAD - self.layer.kernel_size[0]
        values = np.pad(values, [(0, 0), (0, missing), (0, 0), (0, 0)])
        values = by_block(values, self.layer, BLOCK)
        values = values.reshape(len(values), self.groups, QUAD, values.shape[2], -1, QUAD, LANES)
        return [np.ascontiguousarray(values.transpose(4, 1, 3, 0, 5, 6, 2))]

    def prepare_pixel(self, words: PixelCodes, target: tirx.Buffer, base: Expr) -> None:
        """Write the codes of a pixel, in the order that interleaving turns around."""
        order = [lane % 16 // 4 * 16 + lane // 16 * 4 + lane % 4 for lane in range(BLOCK)]
        unpack_codes(self.layer, self.isa, self.prepared, words, target, base, order=order)

    def sums(self, tile: TileContext) -> list[Sums]:
        """Sums of every pixel of a tile, in four vectors of int32."""
        zero = constant(0, "int32", LANES)
        totals = [[Register("int32", LANES, zero) for _ in range(QUAD)] for _ in range(tile.pixels)]
        geometry, (_, kernel_w) = self.layer.geometry, self.layer.kernel_size
        for group in range(self.groups):
            columns: dict[int, list[Vector]] = {}
            for j in range(kernel_w):
                weights = self._weights(tile, group, j)
                for p, pixel in enumerate(totals):
                    number = p * geometry.strides[1] + j * geometry.dilation[1]
                    if number not in columns:
                        columns[number] = self._column(tile, group, j, p)
                    for part in weights:
                        for total, codes, weight in zip(pixel, columns[number], part):
                            total.set(self.isa.dot(total.get(), codes, weight))
        return [[T.Bind(total.get()) for total in pixel] for pixel in totals]

    def _weights(self, tile: TileContext, group: int, j: int) -> list[list[Vector]]:
        """Weights of four rows of a column of taps, part by part."""
        kernel_w, buffer = self.layer.kernel_size[1], tile.memory.product_constants[0]
        column = (tile.block * self.groups + group) * kernel_w + j
        return [
            [
                T.Bind(load(buffer, ((column * len(self.parts) + n) * QUAD + v) * BLOCK, BLOCK))
                for v in range(QUAD)
            ]
            for n in range(len(self.parts))
        ]

    def _column(self, tile: TileContext, group: int, j: int, p: int) -> list[Vector]:
        """Codes of four rows under a column of taps, interleaved: 16 channels to a vector."""
        rows = range(group * QUAD, min((group + 1) * QUAD, self.layer.kernel_size[0]))
        octets = [
            T.Bind(load(tile.prepared.buffer, tile.address(i, j, p) + tile.block * BLOCK, BLOCK))
            for i in rows
        ]
        octets += [constant(0, "uint8", BLOCK)] * (QUAD - len(octets))
        pairs = [
            [
                T.Bind(reinterpret(vector("uint16", BLOCK // 2), interleaved(a, b, BLOCK, 1, half)))
                for half in range(2)
            ]
            for a, b in (octets[:2], octets[2:])
        ]
        words = [
            interleaved(low, high, BLOCK // 2, 2, half)
            for low, high in zip(*pairs)
            for half in range(2)
        ]
        return [T.Bind(reinterpret(vector("uint8", BLOCK), T.Bind(word))) for word in words]


def byte_parts(layer: ConvLayer) -> tuple[int, np.ndarray]:
    """Write weights as a factor times sums of signed bytes.

    Returns
    -------
    factor : int
    parts : ndarray of int8, shape (parts, channels, 1, kernel_h, kernel_w)
    """
    found = byte_weights(layer, MAX_BYTE)
    if found is not None and not found.shift.any():
        return found.factor, found.values[None]
    rest, parts = layer.weight_integers.copy(), []
    while rest.any():
        parts.append(np.clip(rest, -MAX_BYTE - 1, MAX_BYTE))
        rest -= parts[-1]
    return 1, np.stack(parts).astype(np.int8)
