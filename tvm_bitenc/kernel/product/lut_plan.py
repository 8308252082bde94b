"""Which activation planes share a table, and in which loops looked-up sums are widened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from ...branches import BranchGeometry
from ...encoding import planes
from ...layer import ConvLayer
from ..nest.tile import divisors

GROUP = 4  # Channels to a table.
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

    @property
    def limit(self) -> int:
        """Look-ups that a byte sums."""
        return MAX_ENTRY_SUM // self.most


@dataclass(frozen=True)
class Tables:
    """A part of the tables, and the weight planes that are looked up in it.

    Parameters
    ----------
    part : Part
    weight_planes : tuple of (plane, factor)
        What the entries count, times the factor of the plane, is its row of the branch matrix.
    """

    part: Part
    weight_planes: tuple[tuple[int, int], ...]


def tables_of(geometry: BranchGeometry, groups: int) -> list[Tables]:
    """Tables of every distinct row of the branch matrix: of a product, one for all weight planes.

    Parameters
    ----------
    geometry : BranchGeometry
    groups : int
        Tables per pixel and group of channels.
    """
    rows, planes = geometry.table_rows
    readers = [
        tuple((m, factor) for m, (number, factor) in enumerate(planes) if factor and number == i)
        for i in range(len(rows))
    ]
    return [
        Tables(part, read) for row, read in zip(rows, readers) for part in parts_of(row, groups)
    ]


def parts_of(coefficients: Sequence[int], groups: int) -> list[Part]:
    """Split planes of coefficients other than 0 into as few parts as bytes and pairs allow."""
    start, parts = 0, []
    while start < len(coefficients):
        for stop in range(len(coefficients), start, -1):
            factor = int(np.gcd.reduce(coefficients[start:stop])) or 1
            scaled = tuple(c // factor for c in coefficients[start:stop])
            part = Part(range(start, stop), factor, scaled)
            if 2 * part.most <= MAX_ENTRY_SUM and part.most * groups <= MAX_PAIR_SUM:
                break
        parts.append(part)
        start = stop
    return [part for part in parts if any(part.coefficients)]


class Level(Enum):
    """A loop of the look-ups of one weight plane; at its end sums may be widened."""

    PLANE = "all taps"
    ROW = "a row of taps"
    TAP = "a tap"
    CHUNK = "some look-ups of a tap"


@dataclass(frozen=True)
class LoopPlan:
    """Loops over the look-ups of one weight plane in the tables of one part.

    Parameters
    ----------
    widen : Level
        At its end bytes go over to pairs of bytes: as seldom as they may.
    flush : Level or None
        At its end pairs of bytes go over to int32; None where they hold the whole sum.
    chunks, steps, unrolled : int
        Look-ups of a tap: so many chunks, of so many steps, of so many written out.
    """

    widen: Level
    flush: Level | None
    chunks: int
    steps: int
    unrolled: int

    def in_bytes(self, lookups: int, kernel_size: tuple[int, int]) -> int:
        """Look-ups that bytes sum, of so many under a tap."""
        if self.widen is Level.CHUNK:
            return self.steps * self.unrolled
        return lookups * taps_of(self.widen, kernel_size)

    def flushes(self, kernel_size: tuple[int, int]) -> int:
        """How often pairs of bytes go over to int32."""
        return 0 if self.flush is None else rounds_of(self.flush, kernel_size)


def loop_plan(
    part: Part, lookups: int, slots: int, kernel_size: tuple[int, int], is_narrow: bool, unroll: int
) -> LoopPlan:
    """Plan the loops of one part.

    Parameters
    ----------
    part : Part
    lookups : int
        Of a tap and vector of channels, an even number.
    slots : int
        Tables that one of them looks into.
    kernel_size : (height, width)
    is_narrow : bool
        Whether 16 bits hold whole sums.
    unroll : int
        See `Tile`.
    """
    widen = seldom(lookups, kernel_size, part.limit) or Level.CHUNK
    flush = None
    if not is_narrow:
        flush = seldom(lookups * slots * part.most, kernel_size, MAX_PAIR_SUM) or Level.TAP
    most = min(part.limit, unroll or MAX_UNROLL)
    unrolled = max(d for d in divisors(lookups) if d % 2 == 0 and d <= most)
    whole = lookups // unrolled
    steps = whole
    if widen is Level.CHUNK:
        steps = max(d for d in divisors(whole) if d * unrolled <= part.limit)
    return LoopPlan(widen, flush, whole // steps, steps, unrolled)


def seldom(of_tap: int, kernel_size: tuple[int, int], limit: int) -> Level | None:
    """Outermost loop whose sum stays within a limit, from what a tap adds; None for a tap's."""
    levels = (Level.PLANE, Level.ROW, Level.TAP)
    return next((x for x in levels if of_tap * taps_of(x, kernel_size) <= limit), None)


def taps_of(level: Level, kernel_size: tuple[int, int]) -> int:
    """Taps in one round of a loop."""
    taps = {Level.PLANE: kernel_size[0] * kernel_size[1], Level.ROW: kernel_size[1]}
    return taps.get(level, 1)


def rounds_of(level: Level, kernel_size: tuple[int, int]) -> int:
    """How often a loop ends, under one window; that of chunks as if a tap had one."""
    return kernel_size[0] * kernel_size[1] // taps_of(level, kernel_size)


def weight_bits_of(
    layer: ConvLayer, channels: int, inverted: np.ndarray | None = None
) -> np.ndarray:
    """Bits of the weight planes, with 0 in input channels up to `channels`, then inverted.

    Returns
    -------
    ndarray of uint8, shape (weight_bits, out_channels, channels, kernel_h, kernel_w)
    """
    bit = (planes(layer.weight_codes, layer.weight_bits) > 0).astype(np.uint8)
    missing = channels - layer.weight_codes.shape[1]
    bit = np.pad(bit, [(0, 0), (0, 0), (0, missing), (0, 0), (0, 0)])
    return bit if inverted is None else bit ^ inverted[:, None, None, None].astype(np.uint8)
