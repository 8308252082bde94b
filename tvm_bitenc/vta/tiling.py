"""How a convolution is cut to the buffers: bands of output rows, and where input pixels lie."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..accelerator import Accelerator
from ..branches import BranchGeometry
from ..encoding import WORD_BITS
from ..errors import UnsupportedError
from . import floats

ACCUMULATOR_BITS = 32
NARROW_BITS = 16  # Of accumulators that are known to be small.
_BUFFERS = ("act", "weight", "param", "residual", "out")
_MAY_WAIT = ("act", "weight")


@dataclass(frozen=True, eq=False)
class Window:
    """What tiling needs to know of a layer: its windows, and the sizes of its operands.

    Parameters
    ----------
    name : str
    input_shape : (batch, height, width, channels)
    output_size, kernel_size : (height, width)
    geometry : BranchGeometry
    words : int
        64-bit words of a pixel of the input, in all planes.
    act_bits : int
        Planes of the input.
    weight_rows : int
        Buffer rows of DM channels' weights; 0 where there are none.
    out_bits : int
        Of the codes it ends in; for accumulators `ACCUMULATOR_BITS`, or `NARROW_BITS` where they
        fit.
    residual_bits : int
        Of the codes that choose among thresholds, 0 without them.
    copies : int
        How many codes each sum ends in, those of so many output channels.
    border : (table, row_class, column_class), optional
        As `ConvLayer.border`; None for pooling, which has no constants.
    is_float, adds_floats, writes_floats : bool
        Whether accumulators go on in float32, a float residual is added, and the numbers go to
        memory, alone or beside codes.
    writes_packed : bool
        Whether planes of the codes of a pixel lie side by side in its words.
    strings : int
        Runs of a pixel's words that begin with a row of the buffer; 0 if these are the planes.
    rows : int
        Of the buffer, that a pixel's words fill; 0 if each plane has the fewest that hold it.
    """

    name: str
    input_shape: tuple[int, int, int, int]
    output_size: tuple[int, int]
    kernel_size: tuple[int, int]
    geometry: BranchGeometry
    words: int
    act_bits: int
    weight_rows: int
    out_bits: int
    residual_bits: int = 0
    copies: int = 1
    border: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    is_float: bool = False
    adds_floats: bool = False
    writes_floats: bool = False
    writes_packed: bool = False
    strings: int = 0
    rows: int = 0

    @property
    def is_codes(self) -> bool:
        """Whether it ends in planes of codes."""
        return self.out_bits < NARROW_BITS


@dataclass(frozen=True)
class Phase:
    """Input pixels whose row and column have the same remainder modulo the strides.

    Parameters
    ----------
    row, column : int
        The remainders.
    first_row, last_row : int
        Quotients of the rows that output row 0 reads, negative ones included.
    columns : int
        Input columns of this phase.
    """

    row: int
    column: int
    first_row: int
    last_row: int
    columns: int


@dataclass(frozen=True, eq=False)
class Tiling:
    """Sizes of a layer on an accelerator.

    Parameters
    ----------
    layer : Window
    accelerator : Accelerator
    band_rows : int
        Output rows computed from one load of the input.
    """

    layer: Window
    accelerator: Accelerator
    band_rows: int

    def is_double_buffered(self, buffer: str) -> bool:
        """Whether one half of a buffer is filled while the other one is read.

        Where the act or the weight buffer holds what is needed but its half doesn't, loads wait
        until the computation before is done.
        """
        needed, size = getattr(self, f"{buffer}_rows"), self.accelerator.rows(buffer)
        return buffer not in _MAY_WAIT or needed <= size // 2

    @cached_property
    def taps(self) -> list[tuple[int, int]]:
        """(dy, dx) of each kernel position: input position relative to stride times output's."""
        geometry, (height, width) = self.layer.geometry, self.layer.kernel_size
        (top, left), (step_y, step_x) = geometry.padding[:2], geometry.dilation
        return [(i * step_y - top, j * step_x - left) for i in range(height) for j in range(width)]

    @cached_property
    def phases(self) -> list[Phase]:
        """Phases that any tap reads."""
        stride_y, stride_x = self.layer.geometry.strides
        rows: dict[tuple[int, int], list[int]] = {}
        for dy, dx in self.taps:
            rows.setdefault((dy % stride_y, dx % stride_x), []).append(dy // stride_y)
        width = self.layer.input_shape[2]
        return [
            Phase(row, column, min(found), max(found), len(range(column, width, stride_x)))
            for (row, column), found in rows.items()
        ]

    @cached_property
    def row_pixels(self) -> int:
        """Pixel index from one row to the next: holds a row, and equals out_width modulo DN.

        Then DN output pixels in a row, across its end too, read DN different banks.
        """
        lanes = self.accelerator.pixels
        widest = max(phase.columns for phase in self.phases)
        out_width = self.layer.output_size[1]
        return widest + (out_width - widest) % lanes

    def phase_start(self, phase: Phase) -> int:
        """Pixel index of column 0 of a phase's row `first_row`, for the first row of the band."""
        start = 0
        for each in self.phases:
            if each == phase:
                return start
            start += (each.last_row - each.first_row + self.band_rows) * self.row_pixels
        raise ValueError(f"{phase} isn't of this layer")

    @cached_property
    def word_rows(self) -> int:
        """Buffer rows of one word of all the band's pixels."""
        last = self.phases[-1]
        end = last.last_row - last.first_row + self.band_rows
        pixels = self.phase_start(last) + end * self.row_pixels
        return -(-pixels // self.accelerator.pixels)

    @property
    def pixel_rows(self) -> int:
        """Buffer rows that a pixel's words fill."""
        layer, row_words = self.layer, self.accelerator.row_words
        return layer.rows or layer.act_bits * -(-(layer.words // layer.act_bits) // row_words)

    @property
    def act_rows(self) -> int:
        """Buffer rows of a band."""
        return self.word_rows * self.pixel_rows

    @property
    def weight_rows(self) -> int:
        """Buffer rows of DM channels' weights."""
        return self.layer.weight_rows

    @property
    def channels(self) -> int:
        """Output channels that have a sum of their own; 0 for pooling."""
        return 0 if self.layer.border is None else self.layer.border[0].shape[-1]

    @property
    def out_words(self) -> int:
        """Words of output channels that are complete at a time: one, or those of all copies."""
        copies = self.layer.copies
        return copies if self.channels % WORD_BITS == 0 else -(-copies * self.channels // WORD_BITS)

    @property
    def packed_words(self) -> int:
        """Words of a pixel's codes in planes side by side."""
        return -(-self.channels * self.layer.out_bits // WORD_BITS)

    @property
    def word_out_rows(self) -> int:
        """Buffer rows of a band's output: 64 channels of codes, DM accumulators, or all planes."""
        layer = self.layer
        words = self.accelerator.accumulator_words(layer.out_bits)
        per_pixel = layer.out_bits if layer.is_codes else words
        if layer.writes_packed:
            per_pixel = self.packed_words
        return self.band_rows * self.layer.output_size[1] * per_pixel

    @property
    def pixel_words(self) -> int:
        """Words of a pixel's float32 numbers that are complete at a time."""
        channels = self.accelerator.channels
        groups = -(-self.channels // channels)
        return channels // 2 * (min(WORD_BITS // channels, groups) if self.layer.is_codes else 1)

    @property
    def out_rows(self) -> int:
        """Buffer rows of all words of a band's output that are complete at a time."""
        if self.layer.is_codes and self.layer.writes_floats:
            pixels = self.band_rows * self.layer.output_size[1]
            return self.word_out_rows + pixels * self.pixel_words
        return self.word_out_rows * (self.out_words if self.layer.copies > 1 else 1)

    @property
    def residual_rows(self) -> int:
        """Buffer rows of a band's residual, of the channels that are complete at a time."""
        per_pixel = self.pixel_words if self.layer.adds_floats else self.layer.residual_bits
        return self.band_rows * self.layer.output_size[1] * per_pixel

    @cached_property
    def edges(self) -> tuple[int, int, int, int]:
        """row_low, row_high, column_low, column_high of the border classes."""
        if self.layer.border is None:
            return 0, 0, 0, 0
        _, *classes = self.layer.border
        return (*_edges(classes[0]), *_edges(classes[1]))

    @cached_property
    def border(self) -> np.ndarray:
        """Border constants, int32, shape (classes, out_channels), in the order of the hardware."""
        if self.layer.border is None:
            return np.zeros((0, 0), np.int32)
        table, row_class, column_class = self.layer.border
        row_low, row_high, column_low, column_high = self.edges
        rows = _representatives(row_low, row_high, len(row_class))
        columns = _representatives(column_low, column_high, len(column_class))
        picked = table[row_class[rows]][:, column_class[columns]]
        return picked.reshape(-1, table.shape[-1])

    @property
    def param_rows(self) -> int:
        """Buffer rows of DM channels' constants."""
        if self.layer.border is None:
            return 0
        bits = self.layer.out_bits if self.layer.is_codes else 0
        thresholds = (1 << bits) - 1 << self.layer.residual_bits
        return self.threshold_row + self.layer.copies * thresholds

    @property
    def threshold_row(self) -> int:
        """Buffer rows of constants in front of the thresholds."""
        return 2 + len(self.border) + (floats.CONSTANTS if self.layer.is_float else 0)

    def tap_lines(self) -> list[dict[str, int]]:
        """Lines of the tap table."""
        stride_y, stride_x = self.layer.geometry.strides
        phases = {(phase.row, phase.column): phase for phase in self.phases}
        lines = []
        for dy, dx in self.taps:
            phase = phases[dy % stride_y, dx % stride_x]
            row = dy // stride_y - phase.first_row
            offset = self.phase_start(phase) + row * self.row_pixels + dx // stride_x
            lines.append(dict(offset=offset, dy=dy, dx=dx))
        return lines


def _edges(classes: np.ndarray) -> tuple[int, int]:
    """Bounds of the longest run of one class: every position outside gets a class of its own."""
    changes = np.flatnonzero(np.diff(classes)) + 1
    bounds = [0, *changes.tolist(), len(classes)]
    low, high = max(itertools.pairwise(bounds), key=lambda run: run[1] - run[0])
    return low, high


def _representatives(low: int, high: int, size: int) -> list[int]:
    """One position of each class, in order."""
    return [*range(low + 1), *range(high, size)]


def tile(layer: Window, accelerator: Accelerator) -> Tiling:
    """Choose the largest band that fits half of each buffer, and splits the rows evenly.

    Raises
    ------
    UnsupportedError
        If the input of one output row, or the weights of DM channels, don't fit the whole buffer,
        or what else is needed doesn't fit half of its own.
    """
    smallest, height = Tiling(layer, accelerator, 1), layer.output_size[0]
    for buffer, needed in lacking(smallest):
        share, size = _share(buffer), accelerator.rows(buffer) // _share(buffer)
        half = "half of which has" if share == 2 else "which has"
        raise UnsupportedError(
            layer.name,
            f"needs {needed} rows of the accelerator's {buffer} buffer, {half} {size}",
            f"Raise `{buffer}` of the accelerator to {share * needed}, or run the layer on the CPU",
        )
    for bands in range(1, height + 1):
        tiling = Tiling(layer, accelerator, -(-height // bands))
        fits = (
            getattr(tiling, f"{buffer}_rows") <= accelerator.rows(buffer) // 2
            for buffer in ("act", "residual", "out")
        )
        if all(fits):
            return tiling
    return smallest


def lacking(tiling: Tiling) -> list[tuple[str, int]]:
    """Buffers that don't hold a band, and the rows that it needs of each."""
    needed = ((name, getattr(tiling, f"{name}_rows")) for name in _BUFFERS)
    return [(x, rows) for x, rows in needed if rows > tiling.accelerator.rows(x) // _share(x)]


def _share(buffer: str) -> int:
    """Which part of a buffer a band must fit."""
    return 1 if buffer in _MAY_WAIT else 2
