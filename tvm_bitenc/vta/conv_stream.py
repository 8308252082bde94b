"""The instructions of a convolution: what a group of output channels loads, and computes."""

from __future__ import annotations

import numpy as np

from ..bounds import INT32_MAX
from . import isa
from .constants import Constants
from .stream import CONSTANTS, RESIDUAL, Stream
from .tiling import Tiling


class ConvStream(Stream):
    """A group loads its weights and constants once per band.

    Parameters
    ----------
    constants : Constants
    tiling : Tiling
    """

    def __init__(self, constants: Constants, tiling: Tiling):
        channels = len(constants.layer.weight_codes)
        groups = -(-channels // tiling.accelerator.channels)
        super().__init__(tiling, groups, constants.source)
        self.operands = constants
        self.addresses: list[int] = []
        self.lines = {bit: self._lines(bit) for bit in constants.spans}

    def passes(self) -> list[dict[str, int]]:
        """Passes from the highest coefficient down, once for each bit where channels begin."""
        return [line for lines in self.lines.values() for line in lines]

    def _lines(self, bit: int) -> list[dict[str, int]]:
        rows = self.operands.weight_rows(bit)
        return [
            dict(
                act=span.row * self.tiling.word_rows,
                weight=rows[span.weights_alone],
                shift=int(run.shift),
                ones=int(run.ones),
                words=span.words,
                first=span.first,
                last=span.last,
                upper=span.upper,
            )
            for run, span in zip(self.operands.passes, self.operands.spans[bit])
        ]

    def prepare_groups(self) -> None:
        """Put weights and parameters of DM channels side by side."""
        for group in range(self.groups):
            first = group * self.accelerator.channels
            self.addresses.append(self._group(slice(first, first + self.accelerator.channels)))

    def _group(self, channels: slice) -> int:
        words = self.operands.weight_words(channels)
        missing = self.accelerator.channels - words.shape[1]
        rest = self.tiling.weight_rows - len(words)  # Of channels that begin at other bits.
        address = self.constant(np.pad(words, [(0, rest), (0, missing), (0, 0)]))
        constants, thresholds = self._parameters(channels)
        missing += self.accelerator.channels % 2  # Parameters of two channels fill a word.
        # Channels that don't exist reach no threshold, so that their bits are 0.
        never = np.pad(thresholds, [(0, 0), (0, missing)], constant_values=INT32_MAX)
        self.constant(np.concatenate([np.pad(constants, [(0, 0), (0, missing)]), never]))
        return address

    def _parameters(self, channels: slice) -> tuple[np.ndarray, np.ndarray]:
        """Rows of int32: factor of the ones, signs and border classes; and thresholds.

        Copies have a bit of the signs each, and thresholds behind one another.
        """
        operands, copies = self.operands, self.layer.copies
        falls = operands.falls.reshape(copies, -1)[:, channels].astype(np.int64)
        signs = (falls << np.arange(copies)[:, None]).sum(axis=0, keepdims=True)
        rows = [operands.factor[channels][None], signs, self.tiling.border[:, channels]]
        if operands.arithmetic is not None:
            rows.append(operands.arithmetic.rows[:, channels])
        thresholds = operands.thresholds.reshape(-1, copies, self.tiling.channels)[..., channels]
        thresholds = thresholds.swapaxes(0, 1).reshape(-1, thresholds.shape[-1])
        return np.concatenate(rows).astype(np.int32), thresholds

    def load_group(self, band: tuple[int, int, int], group: int) -> None:
        """Load the residual of a word of channels with its first group, and what each reads."""
        word, part = divmod(group, self.groups_per_store)
        if part == 0 and (self.layer.residual_bits or self.layer.adds_floats):
            self._load_residual(band, word)
        rows, channels = self.tiling.weight_rows, self.accelerator.channels
        address, row_words = self.addresses[group], channels * self.accelerator.row_words
        sizes = (
            ("weight", rows, row_words, address),
            ("param", self.tiling.param_rows, -(-channels // 2), address + rows * row_words),
        )
        for buffer, count, words, dram in sizes:
            self.add_load(
                CONSTANTS,
                buffer,
                sram=self.half(buffer, self.computed),
                dram=dram,
                rows=count,
                row_words=words,
                pixels=1,
                words=words,
            )

    def _load_residual(self, band: tuple[int, int, int], word: int) -> None:
        """Load a word of the residual's channels, for all pixels of a band."""
        (_, image, first_row), bits = band, self.layer.residual_bits
        (height, width), words = self.layer.output_size, -(-self.groups // self.groups_per_store)
        pixel = (image * height + first_row) * width
        if self.layer.adds_floats:
            count = self.tiling.pixel_words
            layout = dict(row_words=self.float_words, pixels=1, words=count)
        else:
            count = 1  # Of each plane.
            layout = dict(row_words=bits * words, pixels=bits, pixel_words=words, words=count)
        self.add_load(
            RESIDUAL,
            "residual",
            sram=self.half("residual", self.stores),
            dram=pixel * layout["row_words"] + word * count,
            rows=self.band_rows(first_row) * width,
            **layout,
        )

    def compute(self, band: tuple[int, int, int], group: int) -> None:
        """Compute DM channels of a band."""
        row_low, row_high, column_low, column_high = self.tiling.edges
        read = self.operands.channels_read(group * self.accelerator.channels)
        row, bit = divmod(read.start, self.operands.row_bits)
        number = [*self.lines].index(bit)
        self.set_up(self.lines[bit], number * len(self.operands.passes))
        self.add_compute(
            isa.Conv,
            band,
            group,
            act=self.half("act", band[0]) + row * self.tiling.word_rows,
            weight=self.half("weight", self.computed),
            param=self.half("param", self.computed),
            residual=self.half("residual", self.stores),
            residual_bits=self.layer.residual_bits,
            passes=len(self.operands.passes),
            depthwise=int(self.operands.is_depthwise),
            row_low=row_low,
            row_high=row_high,
            column_low=column_low,
            column_high=column_high,
            thresholds=self.tiling.threshold_row,
        )
