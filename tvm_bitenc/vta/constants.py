"""A layer as the accelerator computes it: which planes count, and constants for what is left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..bounds import INT32_MAX
from ..branches import BranchGeometry
from ..encoding import WORD_BITS
from ..layer import ConvLayer
from . import isa
from .floats import FloatArithmetic, threshold_keys
from .passes import (
    Pass,
    PlaneLayout,
    Span,
    is_power_of_two,
    passes_of,
    planes_of,
)
from .tensor import View
from .tiling import ACCUMULATOR_BITS, Window
from .window_packing import WindowPacking, packing_of

MAX_WEIGHT_BITS = 8
INT32_MIN = -INT32_MAX - 1


@dataclass(frozen=True, eq=False)
class Constants:
    """A layer as the accelerator computes it: planes that count, and constants for the others.

    A weight plane whose bits are all equal isn't computed. One of zeros differs from the
    activations in their ones, and one of ones in all taps but these. (Where branches are no product
    of coefficients, all planes are computed.)

    Parameters
    ----------
    layer : ConvLayer
    table : ndarray, optional
        See `compile_conv`.
    accumulator_bits : int
        Of accumulators that go to memory.
    source : View, optional
        Where its input lies in the accelerator's memory; None if the CPU hands it over.
    arithmetic : FloatArithmetic, optional
        Behind the accumulators.
    float_thresholds : ndarray of float32, shape (2^bits - 1, out_channels), optional
        Of the codes that numbers become.
    writes_floats : bool
        Whether the numbers go to memory, too.
    reads_packed, writes_packed : bool
        See `compile_conv`.
    depth : int
        DK of the accelerator.
    """

    layer: ConvLayer
    table: np.ndarray | None = None
    accumulator_bits: int = ACCUMULATOR_BITS
    source: View | None = None
    arithmetic: FloatArithmetic | None = None
    float_thresholds: np.ndarray | None = None
    writes_floats: bool = False
    reads_packed: bool = False
    writes_packed: bool = False
    depth: int = WORD_BITS

    @property
    def is_depthwise(self) -> bool:
        """Whether bits of the activations choose numbers, see `DepthwiseConstants`."""
        return False

    @cached_property
    def weight_planes(self) -> list[int]:
        """Planes to compute; without the others, coefficients have no gap either."""
        geometry = self.layer.geometry
        weights, acts = geometry.weight_coefficients, geometry.act_coefficients
        if not geometry.is_product:
            return planes_of(self.layer)
        kept = list(range(len(weights)))
        for plane in reversed(kept[:]):
            rest = [m for m in kept if m != plane]
            exponents = {(weights[m] * a).bit_length() for m in rest for a in acts}
            has_gap = exponents != set(range(1, len(exponents) + 1))
            is_unit = 1 in weights and plane == weights.index(1)
            if not is_unit and not has_gap and self._constant_bit(plane) is not None:
                kept = rest
        return kept

    @property
    def branches(self) -> int:
        """How many pairs of planes there are."""
        if self.layer.geometry.is_product:
            return len(self.weight_planes) * self.layer.act_bits
        return self.layer.geometry.branch_count

    @property
    def row_bits(self) -> int:
        """Bits of a row of the buffers of activations and weights."""
        return max(self.depth, WORD_BITS)

    @property
    def row_words(self) -> int:
        """Words of such a row."""
        return self.row_bits // WORD_BITS

    def _passes(self, together: int) -> list[Pass]:
        """Passes where so many planes of a window lie side by side."""
        return passes_of(self.layer, self.weight_planes, together > 1, bool(self.factor.any()))

    @cached_property
    def passes(self) -> list[Pass]:
        """See `passes_of`."""
        return self._passes(self.layout.together)

    @property
    def layout(self) -> PlaneLayout:
        """Where the planes of the input lie."""
        if self.packing is not None:
            return replace(self.packing.layout, depth=self.depth)
        planes = self.layer.act_bits
        if self.source is not None and not self.reads_packed:
            bits = self.row_bits * self.source.rows(self.row_words)
            return PlaneLayout(planes, bits, depth=self.depth)
        together = planes if self.reads_packed else 1
        return PlaneLayout(planes, self.layer.input_shape[3], together, self.depth)

    @cached_property
    def positions(self) -> np.ndarray:
        """Bit of each input channel in the rows of a plane, or of each bit of packed windows."""
        if self.source is not None and not self.reads_packed:
            return self.source.row_positions(self.row_words)
        count = self.layer.input_shape[3] if self.packing is None else self.packing.window_bits
        return np.arange(count)

    def bits_read(self, first: int) -> np.ndarray:
        """Bits of the input channels that an output channel reads: those of its group."""
        if self.packing is not None:
            return self.positions
        size, groups = self.layer.weight_codes.shape[1], self.layer.geometry.groups
        group = first // (len(self.layer.weight_codes) // groups)
        return self.positions[group * size : (group + 1) * size]

    def channels_read(self, first: int) -> range:
        """Range of `bits_read`."""
        bits = self.bits_read(first)
        return range(int(bits[0]), int(bits[-1]) + 1)

    @cached_property
    def spans(self) -> dict[int, list[Span]]:
        """Where the passes lie, for each bit of a row at which some group's channels begin."""
        read = {self.channels_read(first) for first in range(len(self.layer.weight_codes))}
        bits = sorted({channels.start % self.row_bits for channels in read})
        size = len(self.channels_read(0))
        return {
            bit: [self.layout.span(run, range(bit, bit + size)) for run in self.passes]
            for bit in bits
        }

    def weight_rows(self, bit: int) -> dict[Span, int]:
        """Buffer rows of weights in front of those of a pass; equal ones lie there once.

        Passes with the same weights have spans that differ in where they begin alone.
        """
        rows, end = {}, 0
        for span in self.spans[bit]:
            weights = span.weights_alone
            if weights not in rows:
                rows[weights] = end
                end += self._rows_of(span)
        return rows

    def _rows_of(self, span: Span) -> int:
        """Buffer rows of a pass's weights: words of 32 bits are two in a row."""
        height, width = self.kernel_size
        return -(-height * width * span.words * self.depth // self.row_bits)

    @property
    def kernel_size(self) -> tuple[int, int]:
        """Taps of a window; packed windows are pixels."""
        return (1, 1) if self.packing is not None else self.layer.kernel_size

    def _constant_bit(self, plane: int) -> int | None:
        bits = self.layer.weight_codes >> plane & 1
        return int(bits.flat[0]) if np.all(bits == bits.flat[0]) else None

    @cached_property
    def _skipped(self) -> tuple[int, int]:
        """What skipped planes add to the factor of the ones, and to all border constants.

        An inverted plane differs in all taps but those in which the plane itself does.
        """
        factor = border = 0
        if not self.layer.geometry.is_product:
            subtracted = sum(min(g, 0) for row in self.layer.geometry.branch_matrix for g in row)
            return 0, -2 * self.layer.taps * subtracted
        for m, coefficient in enumerate(self.layer.geometry.weight_coefficients):
            if m in self.weight_planes:
                continue
            if self._constant_bit(m):
                factor += 2 * coefficient
                ones = self.layer.taps * sum(self.layer.geometry.act_coefficients)
                border -= 2 * coefficient * ones
            else:
                factor -= 2 * coefficient
        return factor, border

    @cached_property
    def factor(self) -> np.ndarray:
        """Factor of the activations' ones, int64 of each output channel."""
        return 2 * self.layer.weight_offset.astype(np.int64) + self._skipped[0]

    @cached_property
    def packing(self) -> WindowPacking | None:
        """How the CPU packs the bits under each window, where it does: in the fewest steps."""
        found = packing_of(self.layer) if self.source is None else None
        if found is None or self.reads_packed:
            return None
        ways = [replace(found, together=count) for count in range(1, self.layer.act_bits + 1)]

        def steps(way: WindowPacking) -> tuple[int, int]:
            layout = replace(way.layout, depth=self.depth)
            passes, all_bits = self._passes(way.together), range(way.window_bits)
            return sum(layout.span(run, all_bits).words for run in passes), layout.words

        fitting = [way for way in ways if replace(way.layout, depth=self.depth).fits_rows]
        return min(fitting, key=steps)

    @cached_property
    def border(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `ConvLayer.border`, of what the array counts."""
        table, *classes = self.layer.border
        return (table + np.int32(self._skipped[1]), *classes)

    def weight_words(self, channels: slice) -> np.ndarray:
        """Weights of some output channels as their passes meet them.

        Returns
        -------
        ndarray of uint64, shape (rows, channels, words of a row)
        """
        codes = self.layer.weight_codes[channels].transpose(2, 3, 0, 1)  # (i, j, channel, input)
        if self.packing is not None:
            codes = codes.transpose(2, 0, 1, 3).reshape(1, 1, codes.shape[2], -1)
        read = self.bits_read(channels.start)
        bit, offsets = int(read[0]) % self.row_bits, read - read[0]
        return np.concatenate(
            [self._weight_words(codes, offsets, span) for span in self.weight_rows(bit)]
        )

    def _weight_words(self, codes: np.ndarray, offsets: np.ndarray, span: Span) -> np.ndarray:
        """Rows that a pass meets, as of `weight_words`."""
        planes = self.layer.weight_bits
        bits = np.zeros((*codes.shape[:3], span.words * self.depth), np.uint8)
        for number, place in span.weights:
            is_inverted = number >= planes
            bits[..., place + offsets] = codes >> number % planes & 1 ^ is_inverted
        words = np.packbits(bits, axis=-1, bitorder="little")
        words = words.reshape(*codes.shape[:3], span.words, -1).swapaxes(2, 3)
        return self._in_rows(words.reshape(-1, *words.shape[3:]))

    def _in_rows(self, words: np.ndarray) -> np.ndarray:
        """Bytes of words of DK bits (steps, channels, bytes) to rows, which may take two steps."""
        row_steps = self.row_bits // self.depth
        words = np.pad(words, [(0, -len(words) % row_steps), (0, 0), (0, 0)])
        rows = words.reshape(-1, row_steps, *words.shape[1:]).swapaxes(1, 2)
        return np.ascontiguousarray(rows).reshape(*rows.shape[:2], -1).view(np.uint64)

    @cached_property
    def window(self) -> Window:
        """What tiling needs to know; of packed windows, which are pixels then."""
        layer = self.layer
        residual_bits = 0 if self.table is None else self.table.shape[1].bit_length() - 1
        shape, geometry = layer.input_shape, layer.geometry
        if self.packing is not None:
            shape = (shape[0], *layer.output_size, self.packing.window_bits)
            geometry = replace(geometry, strides=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1))
        return Window(
            layer.name,
            shape,
            layer.output_size,
            self.kernel_size,
            geometry,
            self.layout.words,
            layer.act_bits,
            max(sum(map(self._rows_of, self.weight_rows(bit))) for bit in self.spans),
            self.out_bits,
            residual_bits,
            layer.copies,
            self.border,
            self.arithmetic is not None,
            self.arithmetic is not None and self.arithmetic.has_residual,
            self.writes_floats,
            self.writes_packed,
            self.layout.strings,
            self.layout.rows,
        )

    @property
    def out_bits(self) -> int:
        """Bits of the output's codes."""
        if self.float_thresholds is not None:
            return len(self.float_thresholds).bit_length()
        if self.layer.thresholds is None:
            return self.accumulator_bits
        if self.table is None:
            return self.layer.out_bits
        return max(int(self.table.max()).bit_length(), 1)

    @cached_property
    def thresholds(self) -> np.ndarray:
        """int32 (rows, out_channels), in the order of `isa.threshold_rows`.

        A code that falls as the accumulator rises has the opposite bits of one that rises: of -acc
        no less than a threshold t, acc isn't as much as 1 - t.
        """
        layer = self.layer
        if self.float_thresholds is not None:
            reached = isa.threshold_rows(self.window.out_bits)[0]
            return threshold_keys(self.float_thresholds[reached - 1])
        if layer.thresholds is None:
            return np.zeros((0, layer.out_channels), np.int32)
        own, limits = layer.thresholds, (INT32_MIN, INT32_MAX)
        code, residual = isa.threshold_rows(self.window.out_bits, self.window.residual_bits)
        if self.table is None:
            rising = own[code - 1]
        else:
            # The smallest own code from which on the table reaches a code; none and all are limits.
            lowest = (self.table[:, residual] < code).sum(axis=0)
            none, always = (np.full((1, layer.out_channels), limit) for limit in limits)
            rising = np.concatenate([none, own, always])[lowest]
        turned = 1 - rising.astype(np.int64)
        return np.where(self.falls, np.clip(turned, *limits), rising).astype(np.int32)

    @property
    def falls(self) -> np.ndarray:
        """Whether codes fall as the accumulator rises: bool of each output channel."""
        layer = self.layer
        if layer.direction is None:
            return np.zeros(layer.out_channels, bool)
        return layer.direction < 0


def other_factors(geometry: BranchGeometry, is_depthwise: bool = False) -> list[int]:
    """Coefficients of branches that shifts and signs don't give; of activations if depthwise."""
    if is_depthwise:
        return sorted(x for x in {*geometry.act_coefficients} if not is_power_of_two(x))
    factors = {factor for row in geometry.branch_matrix for factor in row if factor}
    return sorted(factor for factor in factors if not is_power_of_two(abs(factor)))


def with_binary_weights(layer: ConvLayer) -> ConvLayer:
    """Spell weights whose coefficients aren't powers of two in planes of such."""
    geometry, coefficients = layer.geometry, layer.geometry.weight_coefficients
    top = sum(coefficients)
    bits = top.bit_length()
    fits = geometry.is_product and min(coefficients) >= 0 and bits <= MAX_WEIGHT_BITS
    if not other_factors(geometry) or not fits:
        return layer
    levels = (layer.weight_bipolar + top) // 2
    binary = tuple(1 << plane for plane in range(bits))
    return replace(
        layer,
        weight_codes=levels.astype(np.uint8),
        weight_offset=layer.weight_offset + np.int32(sum(binary) - top),
        geometry=replace(layer.geometry, weight_coefficients=binary),
    )
