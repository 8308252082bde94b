"""Products of bytes on ARM: two, four or eight input channels deep, by what the CPU has.

==========  ==============  =====================================================================
method      instruction     result
==========  ==============  =====================================================================
``matrix``  USMMLA          2 pixels x 2 output channels in 32 bits, of 8 input channels
``dot``     SDOT, USDOT     4 output channels in 32 bits, of 4 input channels
``pairs``   SMLAL, SMLAL2   4 output channels in 2 x 16 bits, of 2 input channels; SADALP widens
==========  ==============  =====================================================================

A vector holds the codes of 16 input channels of a pixel; instructions take some of them at a time,
repeated in every lane.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...layer import ConvLayer
from ..contract import Sums, TileContext
from ..neon import Neon
from ..nest.tile import Tile, divisors
from ..tir import Expr, joined, load, reinterpret, splat, vector
from .int8 import MAX_WORD, Int8, Step, Totals

ROWS = 2  # Pixels of a matrix product.
MAX_UNROLL = {"matrix": 4, "dot": 4, "pairs": 8}
SEVERAL = 4  # Steps that share a widening where 16 bits fill up soon.
MANY = 32  # Steps from which on registers of 16 bits are kept.


Codes = tuple[Expr, int, int]  # A vector, how many lanes it has, and one of them.


class NeonInt8(Int8[Neon]):
    """Product of bytes for vectors of 128 bits.

    Parameters
    ----------
    layer : ConvLayer
    isa : Neon
    tile : Tile
    """

    def __init__(self, layer: ConvLayer, isa: Neon, tile: Tile):
        super().__init__(layer, isa, tile)
        self.at_once = isa.vector_bytes // self.depth  # Steps whose codes a vector holds.

    def _method(self) -> str:
        if self.isa.has_matrix and self.layer.output_size[1] > 1:
            return "matrix"
        return "dot" if self.isa.has_dot else "pairs"

    @cached_property
    def late(self) -> int:
        """Neighbouring steps whose products 16 bits sum, a divisor of all steps."""
        return max(d for d in divisors(self.steps) if self._fits(d))

    def _fits(self, count: int) -> bool:
        magnitude = np.abs(self.constants[0].astype(np.int32))
        sums = magnitude.reshape(-1, count, self.block * self.depth).sum(axis=1)
        return int(sums.max()) * self._largest <= MAX_WORD

    @property
    def keeps_pairs(self) -> bool:
        """Whether 16 bits sum so many products that registers of them are kept."""
        return self.late >= min(MANY, self.steps)

    def sums(self, tile: TileContext) -> list[Sums]:
        """Sums of every pixel of a tile, in vectors of int32."""
        if self.method == "pairs":
            return self._sums_of_pairs(tile)
        count = self._rows(tile.pixels) if self.method == "matrix" else tile.pixels
        per_row = self.tile.vectors * (ROWS if self.method == "matrix" else 1)
        totals = [[self._zero() for _ in range(per_row)] for _ in range(count)]
        add = self._add_matrix if self.method == "matrix" else self._add_dot
        step = max(d for d in divisors(self.steps) if d <= MAX_UNROLL[self.method])
        with T.grid(*self.layer.kernel_size, self.steps // step) as (i, j, part):
            add(tile, totals, (i, j, part * step), step)
        if self.method == "matrix":
            return self._rows_apart(totals, tile.pixels)
        return [[T.Bind(total.get()) for total in pixel] for pixel in totals]

    @staticmethod
    def _rows(pixels: int) -> int:
        return -(-pixels // ROWS)

    def _weights(self, tile: TileContext, at: Step, count: int) -> list[Expr]:
        """Vectors of weights of one step, 16 bytes each."""
        (i, j, step), (kernel_h, kernel_w) = at, self.layer.kernel_size
        n, size = self.isa.vector_bytes, self.block * self.depth
        base = (((tile.block * kernel_h + i) * kernel_w + j) * self.steps + step) * size
        return [
            T.Bind(load(tile.memory.product_constants[0], base + v * n, n)) for v in range(count)
        ]

    def _codes(self, tile: TileContext, at: Step, p: int, count: int) -> list[Codes]:
        """Codes of neighbouring steps under a pixel, each as (vector, its lanes, lane)."""
        (i, j, first), depth, dtype = at, self.depth, f"int{8 * self.depth}"
        start = tile.address(i, j, p) + (tile.group * self.steps + first) * depth
        found = []
        for t in range(0, count, self.at_once):
            lanes = min(self.at_once, count - t)
            if lanes & (lanes - 1):  # No vector has as many.
                singles = [
                    load(tile.prepared.buffer, start + (t + k) * depth, depth) for k in range(lanes)
                ]
                found += [(T.Bind(reinterpret(dtype, single)), 1, 0) for single in singles]
            else:
                codes = load(tile.prepared.buffer, start + t * depth, lanes * depth)
                codes = T.Bind(reinterpret(vector(dtype, lanes), codes))
                found += [(codes, lanes, lane) for lane in range(lanes)]
        return found

    def _repeated_lane(self, codes: Expr, lanes: int, lane: int) -> Expr:
        """One lane in all of a vector. Made as late as can be: registers are few."""
        if lanes == self.at_once:
            repeated = tirx.Shuffle([codes], [lane] * lanes)
        else:
            one = codes if lanes == 1 else tirx.Shuffle([codes], [lane])
            repeated = splat(one, self.at_once)
        return T.Bind(reinterpret(vector("uint8", self.isa.vector_bytes), repeated))

    # Dot products.

    def _add_dot(self, tile: TileContext, totals: Totals, at: Step, count: int) -> None:
        codes = [self._codes(tile, at, p, count) for p in range(tile.pixels)]
        for t in range(count):
            weights = self._weights(tile, _later(at, t), self.tile.vectors)
            for pixel, of_pixel in zip(totals, codes):
                repeated = self._repeated_lane(*of_pixel[t])
                for total, weight in zip(pixel, weights):
                    total.set(self.isa.dot(total.get(), repeated, weight))

    # Matrix products.

    def _add_matrix(self, tile: TileContext, totals: Totals, at: Step, count: int) -> None:
        rows = [
            self._pixel_pair(tile, at, range(p, min(p + ROWS, tile.pixels)), count)
            for p in range(0, tile.pixels, ROWS)
        ]
        for t in range(count):
            weights = self._weights(tile, _later(at, t), ROWS * self.tile.vectors)
            for pixels, codes in zip(totals, rows):
                for total, weight in zip(pixels, weights):
                    total.set(self.isa.matrix(total.get(), codes[t], weight))

    def _pixel_pair(self, tile: TileContext, at: Step, pixels: range, count: int) -> list[Expr]:
        """Codes of two pixels side by side, eight channels of each, for some steps."""
        (i, j, first), depth = at, self.depth
        at_once = ROWS if count % ROWS == 0 else 1
        found = []
        for t in range(0, count, at_once):
            offset = (tile.group * self.steps + first + t) * depth
            sides = [
                T.Bind(load(tile.prepared.buffer, tile.address(i, j, p) + offset, at_once * depth))
                for p in (pixels[0], pixels[-1])
            ]
            if at_once == 1:
                found.append(T.Bind(joined("uint8", depth, sides)))
                continue
            for half in (0, 2):
                lanes = [half * depth // 2 + lane for lane in range(depth)]
                lanes += [ROWS * depth + lane for lane in lanes]
                found.append(T.Bind(tirx.Shuffle(sides, lanes)))
        return found

    def _rows_apart(self, totals: Totals, pixels: int) -> list[Sums]:
        """Vectors of four output channels of each pixel, from those of two by two."""
        found = []
        for p in range(pixels):
            values = [total.get() for total in totals[p // ROWS]]
            lanes = [lane + p % ROWS * 2 for lane in (0, 1, 4, 5)]
            pairs = zip(values[::2], values[1::2])
            found.append([T.Bind(tirx.Shuffle(list(pair), lanes)) for pair in pairs])
        return found

    # Products of pairs.

    def _sums_of_pairs(self, tile: TileContext) -> list[Sums]:
        totals = [[self._zero() for _ in range(self.tile.vectors)] for _ in range(tile.pixels)]
        (kernel_h, kernel_w), steps = self.layer.kernel_size, self.steps
        step = max(d for d in divisors(self.late) if d <= MAX_UNROLL["pairs"])
        most = self._largest * int(np.abs(self.weights.values.astype(int)).max())
        if not self.keeps_pairs:
            # Widened at once: registers of 16 bits last for a few steps alone.
            step = max(d for d in divisors(steps) if d <= SEVERAL)
            with T.grid(kernel_h, kernel_w, steps // step) as (i, j, part):
                self._add_few(tile, totals, (i, j, part * step), step)
        elif kernel_h * kernel_w * steps * most <= MAX_WORD:
            with (
                self._widened(totals) as pairs,
                T.grid(kernel_h, kernel_w, steps // step) as (i, j, part),
            ):
                self._add_pairs(tile, pairs, (i, j, part * step), step)
        elif kernel_w * steps * most <= MAX_WORD:
            with (
                T.serial(0, kernel_h) as i,
                self._widened(totals) as pairs,
                T.grid(kernel_w, steps // step) as (j, part),
            ):
                self._add_pairs(tile, pairs, (i, j, part * step), step)
        else:
            with (
                T.grid(kernel_h, kernel_w, steps // self.late) as (i, j, outer),
                self._widened(totals) as pairs,
                T.serial(0, self.late // step) as inner,
            ):
                at = i, j, outer * self.late + inner * step
                self._add_pairs(tile, pairs, at, step)
        return [[T.Bind(total.get()) for total in pixel] for pixel in totals]

    @contextmanager
    def _widened(self, totals: Totals) -> Iterator[Totals]:
        """Registers of 16 bits that are added to the totals at the end."""
        pairs = [[self._zero("int16") for _ in pixel] for pixel in totals]
        yield pairs
        for wide, narrow in zip(totals, pairs):
            for total, pair in zip(wide, narrow):
                total.set(self.isa.add_pairs_of_words(total.get(), pair.get()))

    def _add_pairs(self, tile: TileContext, pairs: Totals, at: Step, count: int) -> None:
        """Add the products of some steps to registers of 16 bits."""
        codes = [self._codes(tile, at, p, count) for p in range(tile.pixels)]
        for t in range(count):
            weights = self._weights(tile, _later(at, t), self.tile.vectors // 2)
            for pixel, of_pixel in zip(pairs, codes):
                repeated = self._repeated_lane(*of_pixel[t])
                for v, pair in enumerate(pixel):
                    weight = weights[v // 2]
                    pair.set(self.isa.multiply_pairs(pair.get(), repeated, weight, v % 2))

    def _add_few(self, tile: TileContext, totals: Totals, at: Step, count: int) -> None:
        """Add the products of few steps, one output vector after another."""
        codes = [
            [self._repeated_lane(*code) for code in self._codes(tile, at, p, count)]
            for p in range(tile.pixels)
        ]
        weights = [self._weights(tile, _later(at, t), self.tile.vectors // 2) for t in range(count)]
        together = max(d for d in divisors(count) if self._fits(d))
        for v in range(self.tile.vectors):
            for pixel, of_pixel in zip(totals, codes):
                for t in range(0, count, together):
                    pair = None
                    for k in range(t, t + together):
                        weight = weights[k][v // 2]
                        pair = T.Bind(self.isa.multiply_pairs(pair, of_pixel[k], weight, v % 2))
                    pixel[v].set(self.isa.add_pairs_of_words(pixel[v].get(), pair))


def _later(at: Step, steps: int) -> Step:
    """Some steps further under the same tap."""
    i, j, step = at
    return i, j, step + steps
