"""The instruction stream of one layer: loads, computations and stores, with their tokens.

Bands of output rows are the outer loop, groups of DM output channels the inner one. A group's
constants are loaded once per band while the group before it computes; a word of output channels is
stored while the next one computes.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from ..accelerator import BUFFERS
from ..encoding import WORD_BITS
from ..errors import UnsupportedError
from . import isa
from .program import Program
from .tiling import NARROW_BITS, Tiling


class Stream:
    """What convolutions and pooling share; subclasses add what a group loads and computes.

    Parameters
    ----------
    tiling : Tiling
    groups : int
        Of DM output channels.
    """

    def __init__(self, tiling: Tiling, groups: int):
        self.tiling, self.layer, self.accelerator = tiling, tiling.layer, tiling.accelerator
        self.groups = groups
        parts = WORD_BITS // self.accelerator.channels
        self.groups_per_store = parts if self.layer.is_codes else 1
        self.words_per_store, self.word_step = 1, 1
        if self.layer.copies > 1:  # Words of all copies, or of all groups where they are few.
            self.groups_per_store, self.words_per_store = min(parts, groups), tiling.out_words
            self.word_step = max(groups // parts, 1)
        self.instructions: list[isa.Instruction] = []
        self.relative: dict[int, str] = {}
        self.constants: list[np.ndarray] = []
        self.computed = 0
        self.stores = 0
        self.freed: list[int] = []  # Counts of computations that loads wait for, rising.
        self.must_pop = False  # Whether the next load takes a token.
        self.stored = 0  # How many stores the compute module has seen done.

    def passes(self) -> list[dict[str, int]]:
        """Lines of the pass table."""
        raise NotImplementedError

    def prepare_groups(self) -> None:
        """Put what groups load into the constants."""

    def load_group(self, band: tuple[int, int, int], group: int) -> None:
        """Load what a group reads; a band is its number, its image and its first row."""

    def compute(self, band: tuple[int, int, int], group: int) -> None:
        """Compute a group."""
        raise NotImplementedError

    def program(self, macs: int = 0) -> Program:
        """Emit the whole layer and put everything at its place in memory.

        Raises
        ------
        UnsupportedError
            If a number doesn't fit its field.
        """
        self._emit()
        height, width = self.layer.output_size
        program = Program(
            tuple(self._with_tokens()),
            np.concatenate(self.constants),
            self.plane_words + self.residual_words,
            self.layer.input_shape[0] * height * width * self._out_pixel_words(),
            macs,
        ).linked(self.relative)
        for instruction in program.instructions:
            try:
                isa.encode(instruction)
            except isa.InstructionError as error:
                raise UnsupportedError(self.layer.name, error.cause, "Run it on the CPU") from None
        return program

    @property
    def plane_words(self) -> int:
        """Words of the input's planes."""
        batch, height, width, _ = self.layer.input_shape
        return batch * height * width * self.tiling.words

    @property
    def residual_words(self) -> int:
        """Words of the residual's planes, which follow those of the input."""
        height, width = self.layer.output_size
        words = -(-self.groups // self.groups_per_store) * self.layer.residual_bits
        return self.layer.input_shape[0] * height * width * words

    def _with_tokens(self) -> list[isa.Instruction]:
        """Let those computations give tokens to the load module that it waits for."""
        kept, computed = [], 0
        for instruction in self.instructions:
            if isinstance(instruction, isa.Conv):
                computed += 1
                instruction = replace(instruction, push_prev=int(computed in self.freed))
            kept.append(instruction)
        return kept

    def _emit(self) -> None:
        self._tables()
        self._copies()
        self.prepare_groups()
        batch, height = self.layer.input_shape[0], self.layer.output_size[0]
        bands = itertools.product(range(batch), range(0, height, self.tiling.band_rows))
        firsts: list[int] = []
        for band, (image, first_row) in enumerate(bands):
            firsts.append(self.computed)
            ago = 1 if self.tiling.is_double_buffered("act") else 0
            if band > ago:
                self.free(firsts[band - ago])
            self.load_band(band, image, first_row)
            for group in range(self.groups):
                self.load_group((band, image, first_row), group)
                self.compute((band, image, first_row), group)
        while self.stored < self.stores - 1:
            self.instructions.append(isa.Wait(pop_next=1))
            self.stored += 1
        self.instructions.append(isa.Finish(pop_next=1))

    def add_load(self, base: str, buffer: str, **fields: int) -> None:
        """Add a load of the constants or the input; it waits if `free` was called before."""
        self.relative[len(self.instructions)] = base
        index, must_pop = BUFFERS.index(buffer), int(self.must_pop)
        self.instructions.append(isa.Load(buffer=index, pop_next=must_pop, **fields))
        self.must_pop = False

    def constant(self, words: np.ndarray) -> int:
        """Put an array into the constants, and return its address there."""
        address = sum(each.size for each in self.constants)
        self.constants.append(np.ascontiguousarray(words).reshape(-1).view(np.uint64))
        return address

    def _tables(self) -> None:
        tables = (
            ("tap", self.tiling.tap_lines(), isa.TAP_FIELDS),
            ("pass", self.passes(), isa.PASS_FIELDS),
        )
        for buffer, lines, table in tables:
            words = np.array([isa.encode_line(line, table) for line in lines], np.uint64)
            if len(words) > self.accelerator.rows(buffer):
                cause = f"{len(words)} lines don't fit the {buffer} table"
                raise UnsupportedError(self.layer.name, cause, "Raise its size")
            address = self.constant(words)
            self.add_load("constants", buffer, dram=address, rows=1, pixels=1, words=len(words))

    def _copies(self) -> None:
        """Tell the compute module of copies, where there are any."""
        if self.layer.copies > 1:
            parts, rows = self.groups_per_store, self.tiling.word_out_rows
            self.instructions.append(isa.Copies(count=self.layer.copies, parts=parts, rows=rows))

    def free(self, computed: int) -> None:
        """Make the next load wait until so many computations are done."""
        if computed <= max(self.freed, default=0):
            return
        if self.must_pop:  # The same load waits for more.
            self.freed.pop()
        self.freed.append(computed)
        self.must_pop = True

    def half(self, buffer: str, turn: int) -> int:
        """First row of the half of a buffer that this turn uses; 0 without double buffering."""
        if not self.tiling.is_double_buffered(buffer):
            return 0
        return (turn % 2) * (self.accelerator.rows(buffer) // 2)

    def band_rows(self, first_row: int) -> int:
        """Output rows of the band that starts with a row."""
        return min(self.tiling.band_rows, self.layer.output_size[0] - first_row)

    def load_band(self, band: int, image: int, first_row: int) -> None:
        """Load the input rows of a band, phase by phase."""
        layer, tiling = self.layer, self.tiling
        _, height, width, _ = layer.input_shape
        (stride_y, stride_x), words = layer.geometry.strides, tiling.words
        for phase in tiling.phases:
            start = first_row + phase.first_row
            end = start + phase.last_row - phase.first_row + self.band_rows(first_row)
            low, high = max(start, 0), min(end, len(range(phase.row, height, stride_y)))
            if low >= high or not phase.columns:
                continue
            pixel = (image * height + low * stride_y + phase.row) * width + phase.column
            # Planes that fill no whole rows are loaded one by one: each begins with a row.
            planes = 1 if layer.words % self.accelerator.row_words == 0 else layer.act_bits
            for plane in range(planes):
                self.add_load(
                    "input",
                    "act",
                    sram=self.half("act", band) + plane * tiling.plane_rows,
                    dram=pixel * words + plane * layer.words,
                    rows=high - low,
                    row_words=stride_y * width * words,
                    pixels=phase.columns,
                    pixel_words=stride_x * words,
                    words=words // planes,
                    first_pixel=tiling.phase_start(phase) + (low - start) * tiling.row_pixels,
                    row_pixels=tiling.row_pixels,
                    word_rows=tiling.word_rows,
                )

    def add_compute(
        self,
        kind: type[isa.Conv],
        band: tuple[int, int, int],
        group: int,
        pop_prev: int,
        **fields: int,
    ) -> None:
        """Add a computation with the fields that all kinds share; store when a word is complete."""
        layer, tiling, (_, image, first_row) = self.layer, self.tiling, band
        (out_height, out_width), geometry = layer.output_size, layer.geometry
        pixels = self.band_rows(first_row) * out_width
        word, part = divmod(group, self.groups_per_store)
        ends_word = part == self.groups_per_store - 1 or group == self.groups - 1
        needs_store = part == 0 and self.stores - self.stored >= 2
        self.stored += needs_store
        self.instructions.append(
            kind(
                pop_prev=pop_prev,
                pop_next=int(needs_store),
                push_next=int(ends_word),
                out=self.half("out", self.stores),
                word_rows=tiling.word_rows,
                taps=len(tiling.taps),
                pixels=pixels,
                first_row=first_row,
                out_width=out_width,
                in_height=layer.input_shape[1],
                in_width=layer.input_shape[2],
                stride_y=geometry.strides[0],
                stride_x=geometry.strides[1],
                row_pixels=tiling.row_pixels,
                bits=layer.out_bits if layer.is_codes else 0,
                **self._result(part),
                **fields,
            )
        )
        self.computed += 1
        if ends_word:
            self._store((image * out_height + first_row) * out_width, pixels, word)

    def _result(self, part: int) -> dict[str, int]:
        """Fields that say where codes go, or how accumulators are written."""
        if not self.layer.is_codes:
            return dict(narrow=int(self.layer.out_bits == NARROW_BITS))
        upper, sub_word = divmod(part, isa.PARTS)
        return dict(sub_word=sub_word, narrow=upper)

    def _out_pixel_words(self) -> int:
        if self.layer.is_codes:
            stores = -(-self.groups // self.groups_per_store)
            return self.layer.out_bits * self.words_per_store * stores
        return self.groups * self.accelerator.accumulator_words(self.layer.out_bits)

    def _store(self, first_pixel: int, pixels: int, word: int) -> None:
        """Store the words that are complete: one, or with copies one of each."""
        is_codes, pixel_words = self.layer.is_codes, self._out_pixel_words()
        words = 1 if is_codes else self.accelerator.accumulator_words(self.layer.out_bits)
        for i in range(self.words_per_store):
            self.relative[len(self.instructions)] = "output"
            self.instructions.append(
                isa.Store(
                    pop_prev=int(i == 0),
                    push_prev=int(i == self.words_per_store - 1),
                    sram=self.half("out", self.stores) + i * self.tiling.word_out_rows,
                    dram=first_pixel * pixel_words + (word + i * self.word_step) * words,
                    rows=pixels * (self.layer.out_bits if is_codes else 1),
                    row_words=pixel_words // (self.layer.out_bits if is_codes else 1),
                    words=words,
                )
            )
        self.stores += 1
