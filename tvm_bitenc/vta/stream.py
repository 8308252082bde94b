"""The instructions of one layer: loads, computations and stores; a `Sequencer` adds tokens.

Bands of output rows are the outer loop, groups of DM output channels the inner one. A group's
constants are loaded once per band while the group before it computes; a word of output channels is
stored while the next one computes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import lcm

import numpy as np

from ..accelerator import BUFFERS, Accelerator
from ..encoding import WORD_BITS
from ..errors import UnsupportedError
from . import isa
from .tensor import Segment, Tensor, View, whole
from .tiling import NARROW_BITS, Phase, Tiling

CONSTANTS = "constants"
DOUBLE = ("act", "weight", "param", "residual", "out")  # Buffers that have two halves.
INPUT, RESIDUAL, OUTPUT = "input", "residual", "output"  # Tensors of a layer by itself.
FLOATS = "floats"  # Its float32 numbers beside codes.


@dataclass(frozen=True, eq=False)
class Fragment:
    """A layer's instructions, which still have to be given tokens, and places in memory.

    Parameters
    ----------
    name : str
        Of the layer.
    instructions : tuple of Instruction
        Stores stand behind the computation that completes what they store.
    constants : ndarray of uint64
    relative : dict of int to str
        Per instruction with an address, what it counts from: `CONSTANTS`, or a tensor by name.
    source : View
        What it reads.
    residual : Tensor, optional
    output_words, floats_words : int
        That it writes, and those of float32 numbers beside codes.
    macs : int
        Binary multiply-accumulates that it needs.
    accelerator : Accelerator
    halves : frozenset of str
        Buffers of which it fills one half while the other one is read.
    """

    name: str
    instructions: tuple[isa.Instruction, ...]
    constants: np.ndarray
    relative: dict[int, str]
    source: View
    residual: Tensor | None
    output_words: int
    floats_words: int
    macs: int
    accelerator: Accelerator
    halves: frozenset[str]


class Stream:
    """What convolutions and pooling share; subclasses add what a group loads and computes.

    Parameters
    ----------
    tiling : Tiling
    groups : int
        Of DM output channels.
    source : View, optional
        What it reads; by default a tensor of its own.
    """

    def __init__(self, tiling: Tiling, groups: int, source: View | None = None):
        self.tiling, self.layer, self.accelerator = tiling, tiling.layer, tiling.accelerator
        self.groups = groups
        self.source = source or _own_source(tiling)
        self.parts = parts = WORD_BITS // self.accelerator.channels
        self.groups_per_store = parts if self.layer.is_codes else 1
        self.words_per_store, self.word_step = 1, 1
        if self.layer.writes_packed:
            self.groups_per_store = groups
        if self.layer.copies > 1:  # Words of all copies, or of all groups where they are few.
            self.groups_per_store, self.words_per_store = min(parts, groups), tiling.out_words
            self.word_step = max(groups // parts, 1)
        self.instructions: list[isa.Instruction] = []
        self.relative: dict[int, str] = {}
        self.constants: list[np.ndarray] = []
        self.computed = 0
        self.stores = 0
        self.setup: isa.Setup | None = None

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

    def fragment(self, macs: int = 0) -> Fragment:
        """Emit the whole layer.

        Raises
        ------
        UnsupportedError
            If a number doesn't fit its field.
        """
        self._emit()
        height, width = self.layer.output_size
        pixels = self.layer.input_shape[0] * height * width
        fragment = Fragment(
            self.layer.name,
            tuple(self.instructions),
            np.concatenate(self.constants),
            self.relative,
            self.source,
            self._residual_tensor(),
            pixels * self._out_pixel_words(),
            self._own_floats,
            macs,
            self.accelerator,
            frozenset(filter(self.tiling.is_double_buffered, DOUBLE)),
        )
        for instruction in fragment.instructions:
            try:
                isa.encode(instruction)
            except isa.InstructionError as error:
                raise UnsupportedError(self.layer.name, error.cause, "Run it on the CPU") from None
        return fragment

    def _residual_tensor(self) -> Tensor | None:
        """Planes of codes, or words of two float32 numbers."""
        layer, (height, width) = self.layer, self.layer.output_size
        rows = layer.input_shape[0] * height
        if layer.adds_floats:
            return Tensor(RESIDUAL, rows, width, 1, self.float_words)
        words = -(-self.groups // self.groups_per_store)
        bits = layer.residual_bits
        return Tensor(RESIDUAL, rows, width, bits, words) if bits else None

    @property
    def float_words(self) -> int:
        """Words of a pixel's float32 numbers in memory."""
        return -(-self.groups // self.groups_per_store) * self.tiling.pixel_words

    def _emit(self) -> None:
        self._tables()
        self.prepare_groups()
        batch, height = self.layer.input_shape[0], self.layer.output_size[0]
        bands = itertools.product(range(batch), range(0, height, self.tiling.band_rows))
        for band, (image, first_row) in enumerate(bands):
            self.load_band(band, image, first_row)
            for group in range(self.groups):
                self.load_group((band, image, first_row), group)
                self.compute((band, image, first_row), group)

    def add_load(self, base: str, buffer: str, **fields: int) -> None:
        """Add a load of the constants, or of a tensor."""
        self.relative[len(self.instructions)] = base
        self.instructions.append(isa.Load(buffer=BUFFERS.index(buffer), **fields))

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
            self.add_load(CONSTANTS, buffer, dram=address, rows=1, pixels=1, words=len(words))

    def set_up(self, passes: Sequence[dict[str, int]], first_pass: int = 0) -> None:
        """Tell the compute module what computations share, where it isn't what they shared before.

        Parameters
        ----------
        passes : sequence of dict
            Lines of the pass table that they take.
        first_pass : int
            The first of them.
        """
        layer, words = self.layer, sum(line["words"] for line in passes)
        setup = isa.Setup(
            copies=layer.copies,
            copy_parts=self.groups_per_store if layer.copies > 1 else 0,
            copy_rows=self.tiling.word_out_rows if layer.copies > 1 else 0,
            first_pass=first_pass,
            words=words,
            **self._side_by_side(),
        )
        if layer.is_float:
            setup = replace(
                setup,
                is_float=1,
                adds_residual=int(layer.adds_floats),
                writes_floats=int(layer.writes_floats),
                float_rows=self.tiling.word_out_rows if layer.is_codes else 0,
                pixel_words=self.tiling.pixel_words,
            )
        if setup != self.setup:
            self.instructions.append(setup)
            self.setup = setup

    def _side_by_side(self) -> dict[str, int]:
        """How planes of codes lie side by side, where they do."""
        if not self.layer.writes_packed:
            return {}
        rows, parts = divmod(self.groups, self.parts)
        return dict(pixel_rows=self.tiling.packed_words, plane_parts=parts, plane_rows=rows)

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
        height, stride_y = layer.input_shape[1], layer.geometry.strides[0]
        for phase in tiling.phases:
            start = first_row + phase.first_row
            end = start + phase.last_row - phase.first_row + self.band_rows(first_row)
            low, high = max(start, 0), min(end, len(range(phase.row, height, stride_y)))
            if low < high and phase.columns:
                first_pixel = tiling.phase_start(phase) + (low - start) * tiling.row_pixels
                self._load_rows(phase, image * height, range(low, high), band, first_pixel)

    def _load_rows(
        self, phase: Phase, image: int, rows: range, band: int, first_pixel: int
    ) -> None:
        """Load rows of a phase, all segments of their pixels.

        Parameters
        ----------
        phase : Phase
        image : int
            Row of the input with which the image begins.
        rows : range
            Of the phase.
        band : int
        first_pixel : int
            Index in the buffer of the first row's first pixel.
        """
        tiling, (stride_y, stride_x) = self.tiling, self.layer.geometry.strides
        columns, sram = range(phase.columns), self.half("act", band)
        for segment, plane, row, words in _runs(self.source, self.accelerator.row_words):
            (grid_y, grid_x) = segment.steps
            # So many rows and columns further the same tensor's turn comes again.
            turn_y, turn_x = lcm(stride_y, grid_y) // stride_y, lcm(stride_x, grid_x) // stride_x
            firsts = range(min(turn_y, len(rows))), range(min(turn_x, len(columns)))
            for i, j in itertools.product(*firsts):
                y, x = stride_y * rows[i] + phase.row, stride_x * columns[j] + phase.column
                tensor = segment.grid[y % grid_y][x % grid_x]
                pixel = (image + y) // grid_y * tensor.width + x // grid_x
                row_words = stride_y * turn_y // grid_y * tensor.width * tensor.pixel_words
                self.add_load(
                    tensor.name,
                    "act",
                    sram=sram + row * tiling.word_rows,
                    dram=pixel * tensor.pixel_words + plane * tensor.words + segment.first_word,
                    rows=len(rows[i::turn_y]),
                    row_words=row_words,
                    pixels=len(columns[j::turn_x]),
                    pixel_words=stride_x * turn_x // grid_x * tensor.pixel_words,
                    words=words,
                    first_pixel=first_pixel + i * tiling.row_pixels + j,
                    row_pixels=turn_y * tiling.row_pixels,
                    word_rows=tiling.word_rows,
                    pixel_step=turn_x - 1,
                )

    def add_compute(
        self,
        kind: type[isa.Conv],
        band: tuple[int, int, int],
        group: int,
        **fields: int,
    ) -> None:
        """Add a computation with the fields that all kinds share; store when a word is complete."""
        layer, tiling, (_, image, first_row) = self.layer, self.tiling, band
        (out_height, out_width), geometry = layer.output_size, layer.geometry
        pixels = self.band_rows(first_row) * out_width
        word, part = divmod(group, self.groups_per_store)
        ends_word = part == self.groups_per_store - 1 or group == self.groups - 1
        is_numbers = layer.is_float and not layer.is_codes
        row = out_part = 0
        if layer.writes_packed:  # Where the highest plane begins.
            row, out_part = divmod(group + (layer.out_bits - 1) * self.groups, self.parts)
        self.instructions.append(
            kind(
                out=self.half("out", self.stores) + row,
                out_part=out_part,
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
                narrow=int(layer.out_bits == NARROW_BITS),
                # Of what isn't written by it, it only says which part depthwise layers read.
                sub_word=part if layer.copies > 1 or is_numbers else group % self.parts,
                **fields,
            )
        )
        self.computed += 1
        if ends_word:
            self._store((image * out_height + first_row) * out_width, pixels, word)

    @property
    def batch_pixels(self) -> int:
        """Output pixels of all images."""
        height, width = self.layer.output_size
        return self.layer.input_shape[0] * height * width

    @property
    def _own_floats(self) -> int:
        """Words of numbers that go to memory beside codes."""
        is_both = self.layer.is_codes and self.layer.writes_floats
        return self.batch_pixels * self.float_words if is_both else 0

    def _out_pixel_words(self) -> int:
        if self.layer.writes_packed:
            return self.tiling.packed_words
        if self.layer.is_codes:
            stores = -(-self.groups // self.groups_per_store)
            return self.layer.out_bits * self.words_per_store * stores
        return self.groups * self.accelerator.accumulator_words(self.layer.out_bits)

    def _store(self, first_pixel: int, pixels: int, word: int) -> None:
        """Store the words that are complete: one, or with copies one of each."""
        is_codes, pixel_words = self.layer.is_codes, self._out_pixel_words()
        words = 1 if is_codes else self.accelerator.accumulator_words(self.layer.out_bits)
        runs, run_words = pixels, pixel_words
        if self.layer.writes_packed:
            words = pixel_words
        elif is_codes:
            runs, run_words = pixels * self.layer.out_bits, pixel_words // self.layer.out_bits
        for i in range(self.words_per_store):
            self.relative[len(self.instructions)] = OUTPUT
            self.instructions.append(
                isa.Store(
                    sram=self.half("out", self.stores) + i * self.tiling.word_out_rows,
                    dram=first_pixel * pixel_words + (word + i * self.word_step) * words,
                    rows=runs,
                    row_words=run_words,
                    words=words,
                )
            )
        if self._own_floats:
            self.relative[len(self.instructions)] = FLOATS
            self.instructions.append(
                isa.Store(
                    sram=self.half("out", self.stores) + self.tiling.word_out_rows,
                    dram=first_pixel * self.float_words + word * self.tiling.pixel_words,
                    rows=pixels,
                    row_words=self.float_words,
                    words=self.tiling.pixel_words,
                )
            )
        self.stores += 1


def _own_source(tiling: Tiling) -> View:
    layer = tiling.layer
    batch, height, width, channels = layer.input_shape
    strings = layer.strings or layer.act_bits
    return whole(Tensor(INPUT, batch * height, width, strings, layer.words // strings), channels)


def _runs(view: View, row_words: int) -> Iterator[tuple[Segment, int, int, int]]:
    """Contiguous words of a pixel: segment, plane, row of the buffer, how many.

    Each plane of each segment begins with a row, which has so many words.
    """
    tensor = view.segments[0].tensor
    fills_rows = tensor.bits == 1 or tensor.words % row_words == 0
    if len(view.segments) == 1 and view.words == tensor.words and fills_rows:
        yield view.segments[0], 0, 0, tensor.pixel_words  # All planes.
        return
    before, rows = 0, view.rows(row_words)
    for segment in view.segments:
        for plane in range(tensor.bits):
            yield segment, plane, plane * rows + before, segment.words
        before += -(-segment.words // row_words)
