"""A layer as the accelerator computes it: which planes count, and constants for what is left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..bounds import INT32_MAX
from ..branches import BranchGeometry
from ..layer import ConvLayer
from . import isa
from .floats import FloatArithmetic, threshold_keys
from .passes import is_power_of_two, passes_of, planes_of
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
    arithmetic : FloatArithmetic, optional
        Behind the accumulators.
    float_thresholds : ndarray of float32, shape (2^bits - 1, out_channels), optional
        Of the codes that numbers become.
    writes_floats : bool
        Whether the numbers go to memory, too.
    """

    layer: ConvLayer
    table: np.ndarray | None = None
    accumulator_bits: int = ACCUMULATOR_BITS
    arithmetic: FloatArithmetic | None = None
    float_thresholds: np.ndarray | None = None
    writes_floats: bool = False

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

    @cached_property
    def passes(self) -> list[tuple[int, int, bool, bool]]:
        """See `passes_of`."""
        return passes_of(self.layer, self.weight_planes)

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
        """How the CPU packs the bits under each window, where it does."""
        return packing_of(self.layer)

    @cached_property
    def window(self) -> Window:
        """What tiling needs to know; of packed windows, which are pixels then."""
        layer, (table, *classes) = self.layer, self.layer.border
        residual_bits = 0 if self.table is None else self.table.shape[1].bit_length() - 1
        shape, kernel, geometry = layer.input_shape, layer.kernel_size, layer.geometry
        if self.packing is not None:
            shape = (shape[0], *layer.output_size, self.packing.window_bits)
            kernel = (1, 1)
            geometry = replace(geometry, strides=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1))
        return Window(
            layer.name,
            shape,
            layer.output_size,
            kernel,
            geometry,
            layer.words if self.packing is None else self.packing.words,
            layer.act_bits,
            len(self.weight_planes),
            self.out_bits,
            residual_bits,
            layer.copies,
            (table + np.int32(self._skipped[1]), *classes),
            self.arithmetic is not None,
            self.arithmetic is not None and self.arithmetic.has_residual,
            self.writes_floats,
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


def other_factors(geometry: BranchGeometry) -> list[int]:
    """Coefficients of branches that shifts and signs don't give."""
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
