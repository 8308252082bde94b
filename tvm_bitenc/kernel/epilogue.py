"""What becomes of sums: packed planes by comparing or by arithmetic, integers, or floats."""

from __future__ import annotations

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ..encoding import WORD_BITS
from ..te.conv_layer import ConvLayer
from ..te.float_steps import RESIDUAL, apply_step
from ..te.threshold import planes_of_reached
from .raw import Raw, thresholds_of
from .tir import constant, intrinsic, joined, load, reinterpret, splat, store, vector
from .window import by_block

MAX_COMPARED = 3  # Thresholds up to which comparing with each is cheapest.
MAX_COMPARED_AT_ALL = 7  # Where no line does.
INT32_LANES = 16


class Integers:
    """Accumulators as they are, int32 NHWC."""

    out_dtype = "int32"

    def __init__(self, layer: ConvLayer, raw: Raw, block: int):
        self.layer, self.raw, self.block = layer, raw, block
        self.classes = raw.constant.shape[:2]

    @property
    def constants(self) -> list[np.ndarray]:
        """Constant part by border class, and the factors of U."""
        factors = [self.raw.act_factor] if self.raw.has_act_sum else []
        return [
            by_block(values, self.layer, self.block).astype(np.int32)
            for values in (self.raw.constant, *factors)
        ]

    def finish(self, tile, p: int, parts: list) -> None:
        """Write the accumulators of one pixel."""
        for channel, lanes, acc in self.accumulators(tile, p, parts):
            self._write(tile, p, channel, lanes, acc)

    def accumulators(self, tile, p: int, parts: list) -> list[tuple]:
        """(first channel of the block, lanes, int32 vector) for the whole block."""
        found = []
        for channel, lanes, value in as_int32(parts, self.block):
            padded = tile.blocks * self.block
            first = tile.block * self.block + channel
            acc = value * constant(self.raw.factor, "int32", lanes)
            acc = acc + load(tile.finishing[0], tile.border_class(p) * padded + first, lanes)
            if self.raw.has_act_sum:
                acc = acc + self._act_term(tile, p, first, lanes)
            found.append((channel, lanes, T.Bind(acc)))
        return found

    def _act_term(self, tile, p: int, first, lanes: int):
        """Factors of U times U; one product for all channels where their factors agree."""
        factors = np.unique(self.raw.act_factor)
        if len(factors) == 1:
            return splat(T.Bind(tile.act_sum(p) * int(factors[0])), lanes)
        return load(tile.finishing[1], first, lanes) * splat(tile.act_sum(p), lanes)

    def _place(self, tile, p: int, channel: int) -> tuple:
        """Where a vector lies in the output; its first channel in the group; channels of that."""
        per_group = self.layer.out_channels // self.layer.geometry.groups
        first = tile.block_in_group * self.block + channel
        start = tile.out_pixel(p) * self.layer.out_channels + tile.group * per_group + first
        return start, first, per_group

    def _write(self, tile, p: int, channel: int, lanes: int, acc) -> None:
        """Store a vector, or those of its lanes that are channels."""
        start, first, per_group = self._place(tile, p, channel)
        if per_group % self.block == 0:
            store(tile.out, acc, start, lanes)
            return
        spill = T.alloc_buffer((lanes,), self.out_dtype)
        store(spill, acc, 0, lanes)
        with T.serial(0, lanes) as lane, T.If(first + lane < per_group), T.Then():
            T.buffer_store(tile.out, spill[lane], [start + lane])


class Floats(Integers):
    """Accumulators through float arithmetic, float32 NHWC; a residual may be added on the way."""

    out_dtype = "float32"

    @property
    def constants(self) -> list[np.ndarray]:
        """Those of accumulators, then those of the steps."""
        steps = [value for step in self.layer.steps for value in step.constants]
        padded = [by_block(value, self.layer, self.block).astype(np.float32) for value in steps]
        return [*super().constants, *padded]

    def finish(self, tile, p: int, parts: list) -> None:
        """Write the results of one pixel."""
        for channel, lanes, acc in self.accumulators(tile, p, parts):
            first, floats = tile.block * self.block + channel, vector("float32", lanes)
            left = iter(tile.finishing[-sum(len(s.constants) for s in self.layer.steps) or None :])
            value = acc
            for step in self.layer.steps:
                own = [load(next(left), first, lanes) for _ in step.constants]
                added = None
                if step.name == RESIDUAL:
                    added = self._read(tile, p, channel, lanes)
                value = T.Bind(apply_step(step.name, value, own, floats, added))
            self._write(tile, p, channel, lanes, value)

    def _read(self, tile, p: int, channel: int, lanes: int):
        """Load the residual of a vector of channels."""
        start, first, per_group = self._place(tile, p, channel)
        if per_group % self.block == 0:
            return load(tile.residual, start, lanes)
        gathered = T.alloc_buffer((lanes,), self.out_dtype)
        with T.serial(0, lanes) as lane, T.If(first + lane < per_group):
            with T.Then():
                T.buffer_store(gathered, tile.residual[start + lane], [lane])
            with T.Else():
                T.buffer_store(gathered, tirx.const(0, self.out_dtype), [lane])
        return load(gathered, 0, lanes)


def as_int32(parts: list, block: int) -> list[tuple]:
    """Convert sums to int32, and join short vectors to such of up to 16 lanes."""
    lanes, dtype = block // len(parts), str(parts[0].ty.dtype).partition("x")[0]
    join = max(min(INT32_LANES // lanes, len(parts)), 1)
    join = 1 << (join.bit_length() - 1)
    while len(parts) % join:
        join //= 2
    found = []
    for i in range(0, len(parts), join):
        value = joined(dtype, lanes, parts[i : i + join])
        if dtype != "int32":
            value = tirx.Cast(vector("int32", lanes * join), value)
        found.append((i * lanes, lanes * join, T.Bind(value)))
    return found


class ComparedPlanes:
    """Codes of few bits: compare with every threshold, in terms of the sums themselves.

    A code counts the thresholds that are reached; they rise, so its bit b is the parity of those
    reached among every 2^b-th.
    """

    out_dtype = "uint64"

    def __init__(self, layer: ConvLayer, raw: Raw, block: int, dtype: str):
        self.layer, self.raw, self.block = layer, raw, block
        self.classes = raw.constant.shape[:2]
        self.bits, self.steps = layer.out_bits, len(layer.thresholds)
        self.dtype = "int32" if raw.has_act_sum else dtype
        low, high, factor = raw.low, raw.high, raw.factor_by_channel
        if raw.has_act_sum:
            low, high, factor = -(2**31), 2**31 - 2, 1
        self.thresholds, self.flip = thresholds_of(layer, raw, factor, low, high)

    @property
    def constants(self) -> list[np.ndarray]:
        """Thresholds, the inverted channels in bits, and the factors of U."""
        thresholds = by_block(self.thresholds, self.layer, self.block)
        # Lanes that are no channels must give code 0.
        real = by_block(np.ones(self.layer.out_channels, np.uint8), self.layer, self.block)
        thresholds = np.where(real == 1, thresholds, np.iinfo(self.dtype).max)
        flip = by_block(self.flip.astype(np.uint8), self.layer, self.block)
        found = [thresholds.astype(self.dtype), np.packbits(flip, bitorder="little")]
        if self.raw.has_act_sum:
            found.append(by_block(self.raw.act_factor, self.layer, self.block).astype(np.int32))
        return found

    def finish(self, tile, p: int, parts: list) -> None:
        """Write the planes of one pixel."""
        size = tile.blocks * self.block
        lanes = self.block // len(parts)
        vectors = [(i * lanes, lanes, part) for i, part in enumerate(parts)]
        if self.dtype == "int32":
            vectors = as_int32(parts, self.block)
        if self.raw.has_act_sum:
            vectors = [self._with_act_sum(tile, p, *v) for v in vectors]
        for channel, lanes, value in vectors:
            first = tile.block * self.block + channel
            reached = []
            for step in range(self.steps):
                start = (tile.border_class(p) * self.steps + step) * size + first
                is_reached = value >= load(tile.finishing[0], start, lanes)
                reached.append(T.Bind(reinterpret(f"uint{lanes}", is_reached)))
            self._write(tile, p, channel, lanes, reached, first)

    def _with_act_sum(self, tile, p: int, channel: int, lanes: int, value):
        factor = load(tile.finishing[2], tile.block * self.block + channel, lanes)
        total = value * constant(self.raw.factor, "int32", lanes)
        return channel, lanes, T.Bind(total + factor * splat(tile.act_sum(p), lanes))

    def _write(self, tile, p: int, channel: int, lanes: int, reached: list, first) -> None:
        flipped = None
        if self.flip.any():
            flips = tile.alias(tile.finishing[1], f"uint{lanes}")
            flipped = T.Bind(flips[first // lanes])
        for bit, plane in enumerate(planes_of_reached(reached)):
            if flipped is not None:
                plane = plane ^ flipped
            tile.store_plane(p, bit, channel, lanes, plane)


class AffinePlanes(Integers):
    """Codes of more bits: a line, rounded down and clipped, where that gives them exactly.

    It does if it gives the right code at every threshold and just below it, for both rise.
    """

    out_dtype = "uint64"

    def __init__(self, layer: ConvLayer, raw: Raw, block: int):
        super().__init__(layer, raw, block)
        self.bits = layer.out_bits
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
        octets, width = [], 0
        for channel, lanes, acc in self.accumulators(tile, p, parts):
            code = self._code(tile, tile.block * self.block + channel, lanes, acc)
            octets.append(T.Bind(tirx.Cast(vector("uint8", lanes), code)))
            width = lanes
        together = min(WORD_BITS // width, len(octets))
        for i in range(0, len(octets), together):
            codes = T.Bind(joined("uint8", width, octets[i : i + together]))
            lanes = width * together
            for bit in range(self.bits):
                is_set = (codes & constant(1 << bit, "uint8", lanes)) != constant(0, "uint8", lanes)
                plane = reinterpret(f"uint{lanes}", is_set)
                tile.store_plane(p, bit, i * width, lanes, plane)

    def _code(self, tile, first, lanes: int, acc):
        """Codes of accumulators, int32."""
        dtype, top = str(self.line[0].dtype), 2**self.bits - 1
        floats = vector(dtype, lanes)
        slope, intercept = (load(b, first, lanes) for b in tile.finishing[-2:])
        product = tirx.Cast(floats, acc) * slope
        value = intrinsic(floats, "llvm.arithmetic.fence", product) + intercept
        # Rounded towards 0, which differs from rounding down only for what is clipped anyway.
        code = tirx.Cast(vector("int32", lanes), value)
        code = tirx.max(code, constant(0, "int32", lanes))
        return tirx.min(code, constant(top, "int32", lanes))


class SearchedPlanes(AffinePlanes):
    """Codes of many bits where no line gives them: binary search among the thresholds."""

    def __init__(self, layer: ConvLayer, raw: Raw, block: int):
        Integers.__init__(self, layer, raw, block)
        self.bits = layer.out_bits

    @property
    def constants(self) -> list[np.ndarray]:
        """Those of accumulators, then thresholds by channel, and the directions."""
        thresholds = by_block(self.layer.thresholds, self.layer, self.block).T
        direction = by_block(self.layer.direction, self.layer, self.block)
        real = by_block(np.ones(self.layer.out_channels, np.uint8), self.layer, self.block)
        thresholds = np.where(real[:, None] == 1, thresholds, np.iinfo(np.int32).max)
        steps = [np.ascontiguousarray(thresholds.astype(np.int32)), direction.astype(np.int32)]
        return [*Integers.constants.fget(self), *steps]

    def _code(self, tile, first, lanes: int, acc):
        """Search lane by lane: no vector instruction looks up so many thresholds."""
        thresholds, direction = tile.finishing[-2:]
        steps = 2**self.bits - 1
        along, codes = (T.alloc_buffer((lanes,), "int32") for _ in range(2))
        store(along, acc * load(direction, first, lanes), 0, lanes)
        store(codes, constant(0, "int32", lanes), 0, lanes)
        with T.serial(0, lanes) as lane:
            for bit in reversed(range(self.bits)):
                start = (first + lane) * steps + codes[lane] + ((1 << bit) - 1)
                reached = tirx.Cast("int32", along[lane] >= thresholds[start])
                T.buffer_store(codes, codes[lane] + reached * (1 << bit), [lane])
        return load(codes, 0, lanes)


def fit_line(layer: ConvLayer) -> tuple[np.ndarray, np.ndarray] | None:
    """Slope and intercept per channel, float32 or float64, whose line gives a layer's codes.

    The code is ``clip(floor(slope * acc + intercept), 0, steps)``, rounded after both operations,
    in float32 if that is exact and else in float64. It never falls as ``direction * acc`` rises;
    so it is right everywhere if it is right at both ends of the reachable range, at every
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
        value = acc.astype(dtype) * line[0] + line[1]
        if np.abs(value).max() >= 2**31:
            continue
        if np.array_equal(np.floor(np.clip(value, 0, len(thresholds))), expected):
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
