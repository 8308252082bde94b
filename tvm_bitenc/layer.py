"""Everything static about one quantized convolution, as kernels and reports need it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import SupportsInt

import numpy as np

from .branches import BranchGeometry, accumulator_range, weighted_planes
from .codewords import Codewords, codewords_of
from .encoding import WORD_BITS
from .strategy import CODEBOOK

RESIDUAL = "residual"  # Adds a tensor of the same shape.
ROW_NUMBER_BYTES = 2  # See `ConvLayer.channel_rows`.
STEP_CONSTANTS = {  # How many of them each step takes, by its name.
    "astype": 0,
    "multiply": 1,
    "divide": 1,
    "add": 1,
    "maximum": 1,
    "minimum": 1,
    "prelu": 1,
    "clip": 2,
    "multiply_add": 2,
    "round": 0,
    "floor": 0,
    "ceil": 0,
    "trunc": 0,
    RESIDUAL: 0,
}


def height_width(values: Iterable[SupportsInt]) -> tuple[int, int]:
    """Two numbers, as attributes of ops and nodes hold them."""
    height, width = map(int, values)
    return height, width


def four_sides(values: Iterable[SupportsInt]) -> tuple[int, int, int, int]:
    """Four numbers, as attributes of ops and nodes hold them: (top, left, bottom, right)."""
    top, left, bottom, right = map(int, values)
    return top, left, bottom, right


@dataclass(frozen=True, eq=False)
class FloatStep:
    """One elementwise float32 op.

    Parameters
    ----------
    name : str
        A key of `STEP_CONSTANTS`.
    constants : tuple of ndarray of float32
        Each of shape (channels,).
    """

    name: str
    constants: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True, eq=False)
class ConvLayer:
    """One convolution on packed planes, with its constants.

    Parameters
    ----------
    name : str
    input_shape : (batch, height, width, in_channels)
    weight_codes : ndarray of uint8
        Shape (rows of weights, in_channels / groups, height, width): one row for each output
        channel, unless some share one, see `copies` and `channel_rows`.
    weight_offset : ndarray of int32, shape (rows of weights,)
    geometry : BranchGeometry
    thresholds : ndarray of int32, shape (2^bits - 1, out_channels), optional
        With them the layer ends in codes, packed; without, in int32 accumulators.
    direction : ndarray of int32, shape (out_channels,), optional
        +1, or -1 where codes fall as the accumulator rises.
    strategy : str
    steps : tuple of FloatStep
        With them the layer ends in float32.
    code_steps : tuple of FloatStep
        The function that thresholds stand for: codes in float32, not limited to their bits yet.
        Empty where it isn't known as steps.
    has_dynamic_batch : bool
        Then the batch of `input_shape` is 1, and kernels take that of their input.
    reads_bytes, writes_bytes : bool
        Whether codes come in, or go out, as bytes NHWC instead of planes.
    copies : int
        How many output channels share each row of weights: channel o has that of number
        ``o % len(weight_codes)``. Thresholds and steps are of all output channels.
    channel_rows : tuple of int
        Where channels share rows in another order: the number of the row of each output channel,
        or ``~number`` where its weights are those of the row, negated. Empty elsewhere.
    """

    name: str
    input_shape: tuple[int, int, int, int]
    weight_codes: np.ndarray
    weight_offset: np.ndarray
    geometry: BranchGeometry
    thresholds: np.ndarray | None = None
    direction: np.ndarray | None = None
    strategy: str = field(default="xnor")
    steps: tuple[FloatStep, ...] = ()
    code_steps: tuple[FloatStep, ...] = ()
    has_dynamic_batch: bool = False
    reads_bytes: bool = False
    writes_bytes: bool = False
    copies: int = 1
    channel_rows: tuple[int, ...] = ()

    @property
    def out_channels(self) -> int:  # noqa: D102
        return len(self.channel_rows) or self.weight_codes.shape[0] * self.copies

    @cached_property
    def rows_and_signs(self) -> tuple[np.ndarray, np.ndarray]:
        """Row of the weights of each output channel, and 1, or -1 where they are negated."""
        if not self.channel_rows:
            rows = np.tile(np.arange(len(self.weight_codes)), self.copies)
            return rows, np.ones_like(rows)
        rows = np.array(self.channel_rows)
        return np.where(rows < 0, ~rows, rows), np.where(rows < 0, -1, 1)

    @property
    def is_shared(self) -> bool:
        """Whether some output channels share a row of weights."""
        return self.copies > 1 or bool(self.channel_rows)

    @cached_property
    def distinct(self) -> ConvLayer:
        """The layer whose sums are made: each row of weights once, whatever becomes of the sums.

        It keeps the thresholds of each row's first channel, which tell how it is best stored.
        """
        if not self.is_shared:
            return self
        first = np.unique(self.rows_and_signs[0], return_index=True)[1]
        thresholds, direction = self.thresholds, self.direction
        return replace(
            self,
            thresholds=None if thresholds is None else thresholds[:, first],
            direction=None if direction is None else direction[first],
            steps=(),
            code_steps=(),
            copies=1,
            channel_rows=(),
        )

    @property
    def expanded(self) -> ConvLayer:
        """The same layer with weights for each output channel."""
        if not self.channel_rows:
            return self.with_copies(1)
        rows, signs = self.rows_and_signs
        is_negated = signs[:, None, None, None] < 0
        codes = self.weight_codes[rows]
        return replace(
            self,
            weight_codes=np.where(is_negated, 2**self.weight_bits - 1 - codes, codes),
            weight_offset=self.weight_offset[rows] * signs.astype(np.int32),
            channel_rows=(),
        )

    def with_copies(self, copies: int) -> ConvLayer:
        """Return the same layer with fewer copies, a divisor of their number, of more weights."""
        if copies == self.copies:
            return self
        times = self.copies // copies
        weight_codes = np.tile(self.weight_codes, (times, 1, 1, 1))
        weight_offset = np.tile(self.weight_offset, times)
        return replace(self, weight_codes=weight_codes, weight_offset=weight_offset, copies=copies)

    @cached_property
    def codewords(self) -> Codewords | None:
        """Its distinct kernels, None where they are many."""
        return codewords_of(self.weight_codes, self.weight_bits)

    @property
    def kernel_size(self) -> tuple[int, int]:  # noqa: D102
        return self.weight_codes.shape[2:]

    @property
    def output_size(self) -> tuple[int, int]:
        """Output height and width."""
        (_, height, width, _), kernel = self.input_shape, self.kernel_size
        return (
            self.geometry.out_size(height, kernel[0], 0),
            self.geometry.out_size(width, kernel[1], 1),
        )

    @property
    def weight_bits(self) -> int:  # noqa: D102
        return len(self.geometry.weight_coefficients)

    @property
    def act_bits(self) -> int:  # noqa: D102
        return len(self.geometry.act_coefficients)

    @property
    def out_bits(self) -> int:
        """Bits of the codes it ends in, 32 for accumulators and floats."""
        return 32 if self.thresholds is None else len(self.thresholds).bit_length()

    @property
    def threshold_unit(self) -> tuple[np.ndarray, np.ndarray]:
        """Thresholds and direction of a layer that ends in codes, int64."""
        if self.thresholds is None or self.direction is None:
            raise ValueError(f"layer {self.name!r} doesn't end in codes")
        return self.thresholds.astype(np.int64), self.direction.astype(np.int64)

    @property
    def has_residual(self) -> bool:
        """Whether a float tensor of the output's shape is added."""
        return any(step.name == RESIDUAL for step in self.steps)

    @property
    def words(self) -> int:
        """64-bit words per group, pixel and plane."""
        return -(-self.weight_codes.shape[1] // WORD_BITS)

    @property
    def taps(self) -> int:
        """N: products per accumulator."""
        return int(np.prod(self.weight_codes.shape[1:]))

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the layer, however many bits they have."""
        batch, (out_height, out_width) = self.input_shape[0], self.output_size
        return batch * out_height * out_width * self.out_channels * self.taps

    @property
    def bit_operations(self) -> int:
        """Products of a plane of weights and one of activations, shared ones once.

        Of codewords: their products with every window, and half an operation for each sum, as Wang
        et al. count (arXiv 2110.09195).
        """
        planes, macs = self.geometry.branch_count, self.distinct.macs
        if self.strategy != CODEBOOK or self.codewords is None:
            return macs * planes
        (count, window), groups = self.codewords.kernels.shape, self.geometry.groups
        if count >= len(self.weight_codes) // groups:
            return macs * planes
        sums = macs // window
        windows = sums // len(self.weight_codes) * groups
        return windows * count * window * planes + sums // 2

    @property
    def is_pooling(self) -> bool:
        """Whether it sums each channel by itself: weights that a network never had."""
        one = self.weight_bits == 1 and self.geometry.is_product and not self.has_act_sum
        channels = self.geometry.groups == self.out_channels == self.input_shape[3]
        return channels and one and bool(np.all(self.weight_codes == 1))

    @property
    def stored_bytes(self) -> int:
        """Size of the weights: planes, indices, or 16-bit integers, which some kernels halve.

        Where channels share rows in any order, so many numbers of rows are stored beside them.
        """
        numbers = ROW_NUMBER_BYTES * len(self.channel_rows)
        rows, _, kernel_h, kernel_w = self.weight_codes.shape
        if self.strategy == "int8":
            return 2 * self.weight_codes.size + numbers
        if self.strategy == CODEBOOK and self.codewords is not None:
            return self.codewords.stored_bytes + numbers
        words = rows * kernel_h * kernel_w * self.words * self.weight_bits
        return words * WORD_BITS // 8 + numbers

    @property
    def has_act_sum(self) -> bool:
        """Whether the sum of the activations is needed: some weight offset isn't 0."""
        return bool(np.any(self.weight_offset))

    @cached_property
    def border(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        r"""Every constant part of an accumulator, by border class.

        Kernels count differing bits and the ones of activations, also where padding has written
        code 0, whose planes are -1. What such a tap adds, e, must not count, so that the constant
        takes it back:

        .. math:: N \Bigl( \sum_{m,k} G_{mk} - o_w \sum_k \kappa_k \Bigr)
                  + o_a \sum_{taps} (v_w + o_w) - \sum_{padded\ taps} e, \qquad
                  e = o_a (v_w + o_w) - \sum_{m,k} G_{mk} c_m - o_w \sum_k \kappa_k

        Output rows that lose the same kernel rows form a class, and likewise columns.

        Returns
        -------
        table : ndarray of int32, shape (row classes, column classes, out_channels)
        row_class, column_class : ndarray of int32, shapes (out_height,) and (out_width,)
        """
        geometry, kappa_a = self.geometry, sum(self.geometry.act_coefficients)
        offset_w = self.weight_offset.astype(np.int64)
        alone = geometry.act_offset * self.weight_integers.sum(axis=(1, 2, 3), dtype=np.int64)
        constant = self.taps * (geometry.branch_sum - offset_w * kappa_a) + alone
        of_zero = self._integers_of_zero
        padded = of_zero.sum(axis=(1, 2, 3), dtype=np.int64) - self._sum_inside(of_zero)
        return (constant - padded).astype(np.int32), self._inside(0)[0], self._inside(1)[0]

    @property
    def _integers_of_zero(self) -> np.ndarray:
        """What each tap adds where the activation's code is 0: int32, shaped like the weights."""
        geometry, kappa_a = self.geometry, sum(self.geometry.act_coefficients)
        of_branches = weighted_planes(self.weight_codes, list(map(sum, geometry.branch_matrix)))
        alone = geometry.act_offset * self.weight_integers
        return alone - of_branches - kappa_a * self.weight_offset[:, None, None, None]

    @cached_property
    def integers_inside(self) -> np.ndarray:
        """Sum of v_w + o_w over the taps inside the image: int64, shaped like the border table."""
        return self._sum_inside(self.weight_integers)

    def _sum_inside(self, of_taps: np.ndarray) -> np.ndarray:
        rows, columns = self._inside(0)[1], self._inside(1)[1]
        sums = of_taps.sum(axis=1, dtype=np.int64)
        return np.einsum("oij,ri,cj->rco", sums, rows, columns)

    @cached_property
    def accumulator_range(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest accumulator of each output channel, int64."""
        low, high = accumulator_range(self.weight_codes, self.weight_offset, self.geometry)
        if not self.is_shared:
            return low, high
        rows, signs = self.rows_and_signs
        ends = np.stack([low[rows], high[rows]]) * signs
        return ends.min(axis=0), ends.max(axis=0)

    @cached_property
    def weight_integers(self) -> np.ndarray:
        """v + o of every weight, int32, shaped like the weight codes."""
        return self.weight_bipolar + self.weight_offset[:, None, None, None]

    @property
    def weight_bipolar(self) -> np.ndarray:
        """v of every weight, int32, shaped like the weight codes."""
        return weighted_planes(self.weight_codes, self.geometry.weight_coefficients)

    def _inside(self, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """Class of each output row or column, and per class which taps lie inside the image."""
        geometry = self.geometry
        start = np.arange(self.output_size[axis]) * geometry.strides[axis] - geometry.padding[axis]
        tap = start[:, None] + np.arange(self.kernel_size[axis]) * geometry.dilation[axis]
        inside = (tap >= 0) & (tap < self.input_shape[1 + axis])
        masks, classes = np.unique(inside, axis=0, return_inverse=True)
        return classes.reshape(-1).astype(np.int32), masks.astype(np.int64)

    def with_strategy(self, strategy: str) -> ConvLayer:
        """Return the same layer, computed another way."""
        return replace(self, strategy=strategy)
