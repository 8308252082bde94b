"""Tables of 64 entries: how many there are, which loops look into them, and who shares a look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ...encoding import WORD_BITS
from ...layer import ConvLayer
from ..nest.tile import Tile
from .lut_plan import MAX_ENTRY_SUM, MAX_PAIR_SUM, Level, rounds_of, seldom
from .wide_sums import WideSums

GROUP = 6  # Channels to a table.
TABLE = 1 << GROUP  # Entries of a table, and bytes of the vectors that it takes.
TABLES_PER_WORD = -(-WORD_BITS // GROUP)
MAX_PLANES, MAX_PLANES_OF_WINDOW = 4, 2  # Of all blocks that look into a table at once.
FEW_PIXELS = 4  # Of a tile without a window.
MAX_UNROLL = 22  # Look-ups written out one after another.
NEAR_BYTES = 32 << 10  # Of tables that stay in the first-level cache.


@dataclass(frozen=True)
class WidePlan:
    """Loops over the look-ups of a window.

    Parameters
    ----------
    window : (rows, columns)
        Of taps. Where the tables under a row of them lie one behind the other, it has one column.
    widen : Level
        At its end bytes go over to pairs of bytes: as seldom as they may.
    flush : Level or None
        At its end pairs of bytes go over to int32; None where they hold the whole sum.
    chunks, size, rest : int
        Look-ups of a tap: so many chunks of so many written out, and the rest.
    is_blocked : bool
        All taps of a row look into a chunk of tables before the next chunk: while it is in the
        first-level cache.
    """

    window: tuple[int, int]
    widen: Level
    flush: Level | None
    chunks: int
    size: int
    rest: int
    is_blocked: bool

    @property
    def pieces(self) -> list[tuple[int, int, int]]:
        """Chunks of one size: how many, of how many look-ups, and the number of their first."""
        whole = (self.chunks, self.size, 0)
        return [whole, (1, self.rest, self.chunks * self.size)] if self.rest else [whole]

    @contextmanager
    def summed(self, pixels: list[WideSums], level: Level) -> Iterator[None]:
        """Scope of a loop whose sums are widened at its end, if that is the plan."""
        if level is self.widen:
            for pixel in pixels:
                pixel.clear_octets()
        yield
        if level is self.widen:
            for pixel in pixels:
                pixel.widen()
        if level is self.flush:
            for pixel in pixels:
                pixel.flush()

    @property
    def widenings(self) -> int:
        """How often bytes go over to pairs of bytes, of one pixel."""
        chunks = self.chunks + bool(self.rest) if self.widen is Level.CHUNK else 1
        return rounds_of(self.widen, self.window) * chunks

    @property
    def flushes(self) -> int:
        """How often pairs of bytes go over to int32, of one pixel."""
        return 0 if self.flush is None else rounds_of(self.flush, self.window)


def wide_plan(layer: ConvLayer, is_narrow: bool, tile: Tile) -> WidePlan:
    """Plan the loops of a layer.

    Parameters
    ----------
    layer : ConvLayer
    is_narrow : bool
        Whether 16 bits hold whole sums.
    tile : Tile
    """
    window, tables = layer.kernel_size, tables_of(layer)
    are_neighbours = layer.geometry.groups == 1 and layer.geometry.dilation[1] == 1
    of_row = tables * window[1]
    under = (tile.pixels - 1) * layer.geometry.strides[1] + window[1]  # Pixels.
    # With more planes the second-level cache brings tables as fast as they are looked into.
    is_far = layer.weight_bits == 1 and window[1] > 1 and under * tables * TABLE > NEAR_BYTES
    fits = is_narrow or of_row * largest_term(layer) <= MAX_PAIR_SUM
    if not is_far and are_neighbours and fits:
        window, tables = (window[0], 1), of_row
    limit = MAX_ENTRY_SUM // largest_entry(layer)
    widen = seldom(tables, window, limit) or Level.CHUNK
    flush = None
    if not is_narrow:
        flush = seldom(tables * largest_term(layer), window, MAX_PAIR_SUM) or Level.TAP
    most = min(tables, tile.unroll or MAX_UNROLL)
    if widen is Level.CHUNK:
        most = min(most, limit)
    is_blocked = is_far and widen is Level.CHUNK and flush is not Level.TAP
    size = -(-tables // -(-tables // most))  # Chunks of nearly one size.
    return WidePlan(window, widen, flush, tables // size, size, tables % size, is_blocked)


def planes_at_once(layer: ConvLayer) -> int:
    """How many planes of the weight, of all blocks, look into a table while it is in a register.

    The second-level cache brings tables more slowly than a plane of the weight is looked up.
    """
    if has_far_tables(layer):
        return MAX_PLANES
    return MAX_PLANES_OF_WINDOW if layer.kernel_size != (1, 1) else 1


def has_far_tables(layer: ConvLayer) -> bool:
    """Whether the first-level cache doesn't hold the tables of a few pixels without a window."""
    few = FEW_PIXELS * layer.geometry.groups * tables_of(layer) * TABLE
    return layer.kernel_size[0] == 1 and few > NEAR_BYTES


def tables_of(layer: ConvLayer) -> int:
    """Tables per pixel and group of channels."""
    words, rest = divmod(layer.weight_codes.shape[1], WORD_BITS)
    return words * TABLES_PER_WORD + -(-rest // GROUP)


def largest_entry(layer: ConvLayer) -> int:
    """Largest entry of a table."""
    return GROUP * sum(layer.geometry.act_coefficients)


def largest_term(layer: ConvLayer) -> int:
    """What a table adds to a sum at most, by all planes of the weight."""
    return largest_entry(layer) * sum(layer.geometry.weight_coefficients)
