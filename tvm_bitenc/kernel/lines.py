"""Codes of many bits from accumulators: by a line, or by search where no line gives them."""

from __future__ import annotations

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ..encoding import WORD_BITS
from ..te.conv_layer import ConvLayer
from .epilogue import Integers
from .isa import Isa
from .raw import Raw
from .tir import constant, intrinsic, joined, load, reinterpret, store, vector
from .transpose import planes_of_parts
from .window import by_block


class AffinePlanes(Integers):
    """Codes of more bits: a line, rounded down and clipped, where that gives them exactly.

    It does if it gives the right code at every threshold and just below it, for both rise.
    """

    out_dtype = "uint64"

    def __init__(self, layer: ConvLayer, raw: Raw, block: int, isa: Isa):
        super().__init__(layer, raw, block)
        self.isa, self.bits = isa, layer.out_bits
        self.line = fit_line(layer)

    @property
    def applies(self) -> bool:
        """Whether a line gives every code."""
        return self.line is not None

    @property
    def constants(self) -> list[np.ndarray]:
        """Those of accumulators, then slope and intercept."""
        lines = [by_block(values, self.layer, self.block) for values in self.line]
        return [*super().constants, *lines]

    def finish(self, tile, p: int, parts: list) -> None:
        """Write the planes of one pixel."""
        codes = [
            (lanes, self._code(tile, tile.block * self.block + channel, lanes, acc))
            for channel, lanes, acc in self.accumulators(tile, p, parts)
        ]
        width, values = codes[0][0], [code for _, code in codes]
        whole = self.isa.vector_bytes // width
        if self.isa.transposes_bits and whole == 4 and len(values) % whole == 0:
            for i in range(0, len(values), whole):
                self._write_turned(tile, p, i * width, values[i : i + whole])
        else:
            self._write_bit_by_bit(tile, p, width, values)

    def _write_turned(self, tile, p: int, channel: int, values: list) -> None:
        """Write all planes of a word of channels."""
        planes = planes_of_parts(self.isa, values, self.bits)
        for bit in range(self.bits):
            plane = tirx.Shuffle([planes], [bit])
            tile.store_plane(p, bit, channel, WORD_BITS, plane)

    def _write_bit_by_bit(self, tile, p: int, width: int, values: list) -> None:
        """Compare with each bit, for as many channels as a word of a plane holds."""
        octets = [T.Bind(tirx.Cast(vector("uint8", width), self._clipped(v))) for v in values]
        together = min(WORD_BITS // width, len(octets))
        for i in range(0, len(octets), together):
            codes = T.Bind(joined("uint8", width, octets[i : i + together]))
            lanes = width * together
            for bit in range(self.bits):
                is_set = (codes & constant(1 << bit, "uint8", lanes)) != constant(0, "uint8", lanes)
                plane = reinterpret(f"uint{lanes}", is_set)
                tile.store_plane(p, bit, i * width, lanes, plane)

    def _code(self, tile, first, lanes: int, acc):
        """Codes of accumulators, int32, not clipped yet."""
        floats = vector(str(self.line[0].dtype), lanes)
        slope, intercept = (load(b, first, lanes) for b in tile.finishing[-2:])
        value = intrinsic(floats, "llvm.fma", tirx.Cast(floats, acc), slope, intercept)
        # Rounded towards 0, which differs from rounding down only for what is clipped anyway.
        return T.Bind(tirx.Cast(vector("int32", lanes), value))

    def _clipped(self, code):
        """Codes within their range, int32."""
        lanes = int(str(code.ty.dtype).partition("x")[2] or 1)
        code = tirx.max(code, constant(0, "int32", lanes))
        return tirx.min(code, constant(2**self.bits - 1, "int32", lanes))


class SearchedPlanes(AffinePlanes):
    """Codes of many bits where no line gives them: a line, then binary search from there.

    The thresholds of real layers lie beside a line, for the float function that they stand for
    rounds. So the line is wrong by one at most, and one comparison is left.
    """

    def __init__(self, layer: ConvLayer, raw: Raw, block: int, isa: Isa):
        Integers.__init__(self, layer, raw, block)
        self.isa, self.bits = isa, layer.out_bits
        *self.line, self.rounds = line_below(layer)

    @property
    def constants(self) -> list[np.ndarray]:
        """Those of accumulators; thresholds by channel, and directions; slope and intercept."""
        thresholds = by_block(self.layer.thresholds, self.layer, self.block).T
        direction = by_block(self.layer.direction, self.layer, self.block)
        real = by_block(np.ones(self.layer.out_channels, np.uint8), self.layer, self.block)
        thresholds = np.where(real[:, None] == 1, thresholds, np.iinfo(np.int32).max)
        steps = [np.ascontiguousarray(thresholds.astype(np.int32)), direction.astype(np.int32)]
        lines = [by_block(values, self.layer, self.block) for values in self.line]
        return [*Integers.constants.fget(self), *steps, *lines]

    def _code(self, tile, first, lanes: int, acc):
        """Search lane by lane: no vector instruction looks up so many thresholds."""
        thresholds, direction = tile.finishing[-4:-2]
        steps, span = 2**self.bits - 1, 2**self.rounds - 1
        along, codes = (T.alloc_buffer((lanes,), "int32") for _ in range(2))
        start = tirx.max(super()._code(tile, first, lanes, acc), constant(0, "int32", lanes))
        store(along, acc * load(direction, first, lanes), 0, lanes)
        store(codes, tirx.min(start, constant(steps - span, "int32", lanes)), 0, lanes)
        with T.serial(0, lanes) as lane:
            for bit in reversed(range(self.rounds)):
                place = (first + lane) * steps + codes[lane] + ((1 << bit) - 1)
                reached = tirx.Cast("int32", along[lane] >= thresholds[place])
                T.buffer_store(codes, codes[lane] + reached * (1 << bit), [lane])
        return load(codes, 0, lanes)


def line_below(layer: ConvLayer) -> tuple[np.ndarray, np.ndarray, int]:
    """A line under the codes of a layer, by as little as can be.

    Returns
    -------
    slope, intercept : ndarray of float32, shape (out_channels,)
        ``floor(slope * acc + intercept)``, clipped, is never above the code of acc.
    rounds : int
        The code is at most ``2^rounds - 1`` above it.
    """
    direction, steps = layer.direction.astype(np.int64), len(layer.thresholds)
    ends = np.stack(layer.accumulator_range) * direction
    low, high = ends.min(axis=0), ends.max(axis=0)
    at = np.clip(layer.thresholds.astype(np.int64), low, high + 1)
    codes = np.arange(1, steps + 1)[:, None]
    slope = _regression(at, codes, (at > low) & (at <= high))
    rounding = 8 * np.finfo(np.float32).eps * (2 * np.abs(slope * at).max() + steps)
    # As high as it may be: just below a threshold it doesn't reach the threshold's code. One that
    # is always reached has no accumulator below it, and one that never is has none above.
    rises = np.where(at > low, slope * (at - 1) - codes, -steps - 1)
    intercept = -rises.max(axis=0) - rounding
    missing = np.where(at <= high, codes - (slope * at + intercept - rounding), 0)
    missing = np.ceil(missing.max())
    rounds = min(max(int(missing), 1).bit_length(), steps.bit_length())
    return slope * direction.astype(np.float32), intercept.astype(np.float32), rounds


def _regression(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Slope of y over x, by column, of the points that count; float32."""
    number = np.maximum(counts.sum(axis=0), 1)
    dx, dy = (
        np.where(counts, value - (value * counts).sum(axis=0) / number, 0) for value in (x, y)
    )
    return ((dx * dy).sum(axis=0) / np.maximum((dx**2).sum(axis=0), 1)).astype(np.float32)


def fit_line(layer: ConvLayer) -> tuple[np.ndarray, np.ndarray] | None:
    """Slope and intercept per channel, float32 or float64, whose line gives a layer's codes.

    The code is ``clip(floor(slope * acc + intercept), 0, steps)``, in float32 if that is exact and
    else in float64, and by a margin beyond all rounding. It never falls as ``direction * acc``
    rises; so it is right everywhere if it is right at both ends of the reachable range, at every
    threshold, and just below each. None if a channel has no such line.
    """
    direction = layer.direction.astype(np.int64)
    thresholds = layer.thresholds.astype(np.int64)
    ends = np.stack(layer.accumulator_range) * direction
    low, high = ends.min(axis=0), ends.max(axis=0)
    # A threshold that is always or never reached binds at the end of the range alone.
    at, below = np.maximum(thresholds, low), np.minimum(thresholds - 1, high)
    always, never = thresholds <= low, thresholds > high
    codes = np.arange(1, len(thresholds) + 1)[:, None]

    def margin(slope: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest intercept that the thresholds allow."""
        lowest = np.where(never, -np.inf, codes - slope * at).max(axis=0)
        highest = np.where(always, np.inf, codes - slope * below).min(axis=0)
        return np.maximum(lowest, -1e9), np.minimum(highest, 1e9)

    slope = _widest(margin, len(thresholds))
    lowest, highest = margin(slope)
    # A code that no threshold bounds on one side is bounded by clipping.
    lowest = np.where(lowest <= -1e9, highest - 1, lowest)
    highest = np.where(highest >= 1e9, lowest + 1, highest)
    slope, intercept = slope * direction, (lowest + highest) / 2
    is_constant = np.all(always | never, axis=0)
    slope = np.where(is_constant, 0, slope)
    intercept = np.where(is_constant, always.sum(axis=0) + 0.5, intercept)
    # Points out of reach would ask for codes that no accumulator gets.
    points = np.clip(np.concatenate([at, below, [low, high]]), low, high)
    acc = (points * direction).astype(np.int32)
    expected = np.stack(
        [np.searchsorted(t, x, side="right") for t, x in zip(thresholds.T, points.T)], axis=1
    )
    for dtype in (np.float32, np.float64):
        line = slope.astype(dtype), intercept.astype(dtype)
        value = acc.astype(np.float64) * line[0] + line[1]
        largest = np.abs(value).max() + np.abs(line[1]).max()
        margin = 4 * np.finfo(dtype).eps * largest
        bounds = (np.floor(np.clip(value + e, 0, len(thresholds))) for e in (-margin, margin))
        if largest < 2**31 and all(np.array_equal(bound, expected) for bound in bounds):
            return line
    return None


def _widest(margin, steps: int, rounds: int = 100) -> np.ndarray:
    """Slopes at which the margin is widest: it is a concave function of the slope."""
    low = np.zeros_like(margin(0.0)[0])
    high = np.full_like(low, steps + 1.0)
    for _ in range(rounds):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        rises = np.subtract(*margin(a)[::-1]) < np.subtract(*margin(b)[::-1])
        low, high = np.where(rises, a, low), np.where(rises, high, b)
    return (low + high) / 2
