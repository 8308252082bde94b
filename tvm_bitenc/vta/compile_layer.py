"""One convolution to a program for the accelerator.

Bands of output rows are the outer loop, groups of DM output channels the inner one. A group's
weights are loaded once per band while the group before it computes; a word of output channels is
stored while the next one computes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

import numpy as np

from ..encoding import INT32_MAX, WORD_BITS, pack
from ..errors import UnsupportedError
from ..te.conv_layer import ConvLayer
from . import isa
from .config import BUFFERS, Accelerator
from .functional import FACTOR_BITS, ONES_BITS
from .program import Program
from .tiling import Tiling, tile


def compile_conv(layer: ConvLayer, accelerator: Accelerator) -> Program:
    """Compile a layer on packed planes; its output is as `run_conv` shapes it.

    Raises
    ------
    UnsupportedError
        For groups, float steps, coefficients that Horner's rule can't reach, dynamic batches, and
        layers that don't fit the buffers or the instructions' fields.
    """
    _check(layer)
    tiling = tile(layer, accelerator)
    builder = _Builder(tiling)
    builder.emit()
    program = builder.program()
    for instruction in program.instructions:
        try:
            isa.encode(instruction)
        except isa.InstructionError as error:
            raise UnsupportedError(layer.name, error.cause, "Run it on the CPU") from None
    return program


def output_of(layer: ConvLayer, accelerator: Accelerator, words: np.ndarray) -> np.ndarray:
    """Shape a program's output: uint64 (N, H, W, bits, words), or int32 (N, H, W, channels)."""
    shape = (layer.input_shape[0], *layer.output_size)
    if layer.thresholds is not None:
        return words.reshape(*shape, layer.out_bits, -1)
    return words.view(np.int32).reshape(*shape, -1)[..., : layer.out_channels]


def passes_of(layer: ConvLayer) -> list[tuple[int, int, bool, bool]]:
    """(weight plane, activation plane, shift first, count ones), highest coefficient first.

    Horner's rule: before a pass of a lower coefficient all that was summed is doubled.
    """
    weights, acts = layer.geometry.weight_coefficients, layer.geometry.act_coefficients
    pairs = [
        ((w * a).bit_length() - 1, m, k) for m, w in enumerate(weights) for k, a in enumerate(acts)
    ]
    pairs.sort(key=lambda pair: -pair[0])
    unit = weights.index(1)
    passes, before = [], pairs[0][0]
    for exponent, m, k in pairs:
        passes.append((m, k, exponent < before, m == unit))
        before = exponent
    return passes


def _check(layer: ConvLayer) -> None:
    def refuse(cause: str) -> None:
        raise UnsupportedError(layer.name, cause, "Run it on the CPU")

    if layer.geometry.groups != 1:
        refuse("the accelerator has no grouped convolutions")
    if layer.steps:
        refuse("it ends in float arithmetic")
    if layer.has_dynamic_batch:
        refuse("its batch isn't fixed")
    ones = layer.taps * sum(layer.geometry.act_coefficients)
    widest = 2 * int(np.abs(layer.weight_offset.astype(np.int64)).max())
    if widest >> FACTOR_BITS - 1 or (widest and ones >> ONES_BITS):
        refuse(f"weight offset {widest // 2} or {ones} ones don't fit the multiplier")
    for coefficients in (layer.geometry.weight_coefficients, layer.geometry.act_coefficients):
        exponents = {c.bit_length() - 1 for c in coefficients if c > 0 and c & (c - 1) == 0}
        is_horner = all(c > 0 and c & (c - 1) == 0 for c in coefficients)
        if not is_horner or exponents != set(range(len(exponents))):
            refuse(f"coefficients {coefficients} aren't powers of two without a gap from 1 on")


@dataclass
class _Builder:
    """Instructions of one layer, with their tokens."""

    tiling: Tiling
    instructions: list[isa.Instruction] = field(default_factory=list)
    relative: dict[int, str] = field(default_factory=dict)
    constants: list[np.ndarray] = field(default_factory=list)
    convs: int = 0
    stores: int = 0
    freed: int = 0  # How many convolutions the load module has seen done.
    must_pop: bool = False  # Whether the next load takes a token.
    stored: int = 0  # How many stores the compute module has seen done.

    def __post_init__(self):
        self.layer: ConvLayer = self.tiling.layer
        self.accelerator: Accelerator = self.tiling.accelerator
        self.groups = -(-self.layer.out_channels // self.accelerator.channels)
        self.is_codes = self.layer.thresholds is not None
        self.groups_per_store = WORD_BITS // self.accelerator.channels if self.is_codes else 1

    def program(self) -> Program:
        """Put everything at its place in memory."""
        layer = self.layer
        batch, height, width, _ = layer.input_shape
        pixels = batch * layer.output_size[0] * layer.output_size[1]
        steps = layer.weight_bits * layer.act_bits
        program = Program(
            tuple(self._without_idle_tokens()),
            np.concatenate(self.constants),
            batch * height * width * self.tiling.words,
            pixels * self._out_pixel_words(),
            macs=layer.macs * steps,
        )
        return program.linked(self.relative)

    def _without_idle_tokens(self) -> list[isa.Instruction]:
        """Drop tokens to the load module that nothing takes."""
        kept, pushed = [], 0
        for instruction in self.instructions:
            if isinstance(instruction, isa.Conv):
                instruction = replace(instruction, push_prev=int(pushed < self.freed))
                pushed += 1
            kept.append(instruction)
        return kept

    def emit(self) -> None:
        """Emit the whole layer."""
        self._tables()
        group_addresses = [self._group_constants(group) for group in range(self.groups)]
        batch, height, first_conv = self.layer.input_shape[0], self.layer.output_size[0], []
        bands = itertools.product(range(batch), range(0, height, self.tiling.band_rows))
        for band, (image, first_row) in enumerate(bands):
            if band >= 2:
                self._free(first_conv[band - 1])
            first_conv.append(self.convs)
            self._load_band(band, image, first_row)
            for group, address in enumerate(group_addresses):
                self._load_group(address)
                self._conv(band, image, first_row, group)
        while self.stored < self.stores - 1:
            self.instructions.append(isa.Wait(pop_next=1))
            self.stored += 1
        self.instructions.append(isa.Finish(pop_next=1))

    def _add_load(self, base: str, buffer: str, **fields: int) -> None:
        self.relative[len(self.instructions)] = base
        index, must_pop = BUFFERS.index(buffer), int(self.must_pop)
        self.instructions.append(isa.Load(buffer=index, pop_next=must_pop, **fields))
        self.must_pop = False

    def _constant(self, words: np.ndarray) -> int:
        address = sum(each.size for each in self.constants)
        self.constants.append(np.ascontiguousarray(words).reshape(-1).view(np.uint64))
        return address

    def _tables(self) -> None:
        layer, tiling = self.layer, self.tiling
        plane_rows = layer.words * tiling.word_rows
        weight_plane = tiling.weight_rows // layer.weight_bits
        passes = [
            dict(act=k * plane_rows, weight=m * weight_plane, shift=int(shift), ones=int(ones))
            for m, k, shift, ones in passes_of(layer)
        ]
        tables = (("tap", tiling.tap_lines(), isa.TAP_FIELDS), ("pass", passes, isa.PASS_FIELDS))
        for buffer, lines, table in tables:
            words = np.array([isa.encode_line(line, table) for line in lines], np.uint64)
            size = self.accelerator.rows(buffer)
            if len(words) > size:
                raise UnsupportedError(
                    layer.name, f"{len(words)} lines don't fit the {buffer} table", "Raise its size"
                )
            self._add_load(
                "constants",
                buffer,
                dram=self._constant(words),
                rows=1,
                pixels=1,
                words=len(words),
            )

    def _group_constants(self, group: int) -> int:
        """Weights and parameters of DM channels, side by side in memory."""
        first = group * self.accelerator.channels
        channels = slice(first, first + self.accelerator.channels)
        codes = self.layer.weight_codes[channels].transpose(0, 2, 3, 1)
        words = pack(codes, self.layer.weight_bits)  # (channel, i, j, plane, word)
        words = np.moveaxis(words, (0, 3), (4, 0))  # (plane, i, j, word, channel)
        missing = self.accelerator.channels - len(codes)
        words = np.pad(words, [(0, 0)] * 4 + [(0, missing)])
        address = self._constant(words)
        constants, thresholds = self._parameters(channels)
        # Channels that don't exist reach no threshold, so that their bits are 0.
        never = np.pad(thresholds, [(0, 0), (0, missing)], constant_values=INT32_MAX)
        self._constant(np.concatenate([np.pad(constants, [(0, 0), (0, missing)]), never]))
        return address

    def _parameters(self, channels: slice) -> tuple[np.ndarray, np.ndarray]:
        """Rows of int32: factor of the ones, sign and border classes; and thresholds.

        Where codes fall as the accumulator rises, everything but the thresholds is negated.
        """
        layer = self.layer
        count = len(layer.weight_codes[channels])
        direction = np.ones(count, np.int32)
        thresholds = np.zeros((0, count), np.int32)
        if self.is_codes:
            direction, thresholds = layer.direction[channels], layer.thresholds[:, channels]
            thresholds = thresholds[isa.threshold_rows(layer.out_bits)[0] - 1]
        factor = 2 * layer.weight_offset[channels] * direction
        border = self.tiling.border[:, channels] * direction
        rows = [factor[None], (direction < 0)[None], border]
        return np.concatenate(rows).astype(np.int32), thresholds.astype(np.int32)

    def _free(self, convs: int) -> None:
        """Make the next load wait until so many convolutions are done."""
        while self.freed < convs:
            if self.must_pop:
                self.instructions.append(isa.Load(pop_next=1))
            self.must_pop = True
            self.freed += 1

    def _load_band(self, band: int, image: int, first_row: int) -> None:
        layer, tiling = self.layer, self.tiling
        _, height, width, _ = layer.input_shape
        (stride_y, stride_x), words = layer.geometry.strides, tiling.words
        rows = min(tiling.band_rows, layer.output_size[0] - first_row)
        for phase in tiling.phases:
            start = first_row + phase.first_row
            low = max(start, 0)
            high = min(start + phase.last_row - phase.first_row + rows,
                       len(range(phase.row, height, stride_y)))  # fmt: skip
            if low >= high or not phase.columns:
                continue
            pixel = (image * height + low * stride_y + phase.row) * width + phase.column
            self._add_load(
                "input",
                "act",
                sram=self._half("act", band),
                dram=pixel * words,
                rows=high - low,
                row_words=stride_y * width * words,
                pixels=phase.columns,
                pixel_words=stride_x * words,
                words=words,
                first_pixel=tiling.phase_start(phase) + (low - start) * tiling.row_pixels,
                row_pixels=tiling.row_pixels,
                word_rows=tiling.word_rows,
            )

    def _half(self, buffer: str, turn: int) -> int:
        return (turn % 2) * (self.accelerator.rows(buffer) // 2)

    def _load_group(self, address: int) -> None:
        self._free(self.convs - 1)
        rows, channels = self.tiling.weight_rows, self.accelerator.channels
        sizes = (
            ("weight", rows, channels, address),
            ("param", self.tiling.param_rows, channels // 2, address + rows * channels),
        )
        for buffer, count, words, dram in sizes:
            self._add_load(
                "constants",
                buffer,
                sram=self._half(buffer, self.convs),
                dram=dram,
                rows=count,
                row_words=words,
                pixels=1,
                words=words,
                push_next=int(buffer == "param"),
            )

    def _conv(self, band: int, image: int, first_row: int, group: int) -> None:
        layer, tiling = self.layer, self.tiling
        (out_height, out_width), geometry = layer.output_size, layer.geometry
        rows = min(tiling.band_rows, out_height - first_row)
        row_low, row_high, column_low, column_high = tiling.edges
        starts_word = group % self.groups_per_store == 0
        ends_word = group % self.groups_per_store == self.groups_per_store - 1
        ends_word |= group == self.groups - 1
        needs_store = starts_word and self.stores - self.stored >= 2
        self.stored += needs_store
        self.instructions.append(
            isa.Conv(
                pop_prev=1,
                pop_next=int(needs_store),
                push_next=int(ends_word),
                act=self._half("act", band),
                word_rows=tiling.word_rows,
                weight=self._half("weight", self.convs),
                param=self._half("param", self.convs),
                out=self._half("out", self.stores),
                passes=layer.weight_bits * layer.act_bits,
                taps=len(tiling.taps),
                words=layer.words,
                pixels=rows * out_width,
                first_row=first_row,
                out_width=out_width,
                in_height=layer.input_shape[1],
                in_width=layer.input_shape[2],
                stride_y=geometry.strides[0],
                stride_x=geometry.strides[1],
                row_pixels=tiling.row_pixels,
                row_low=row_low,
                row_high=row_high,
                column_low=column_low,
                column_high=column_high,
                thresholds=2 + len(tiling.border),
                bits=layer.out_bits if self.is_codes else 0,
                sub_word=group % self.groups_per_store if self.is_codes else 0,
            )
        )
        self.convs += 1
        if ends_word:
            first_pixel = (image * out_height + first_row) * out_width
            self._store(first_pixel, rows * out_width, group // self.groups_per_store)

    def _out_pixel_words(self) -> int:
        if self.is_codes:
            return self.layer.out_bits * -(-self.layer.out_channels // WORD_BITS)
        return self.groups * self.accelerator.channels // 2

    def _store(self, first_pixel: int, pixels: int, word: int) -> None:
        words = 1 if self.is_codes else self.accelerator.channels // 2
        rows = pixels * (self.layer.out_bits if self.is_codes else 1)
        pixel_words = self._out_pixel_words()
        self.relative[len(self.instructions)] = "output"
        self.instructions.append(
            isa.Store(
                pop_prev=1,
                push_prev=1,
                sram=self._half("out", self.stores),
                dram=first_pixel * pixel_words + word * words,
                rows=rows,
                row_words=pixel_words // (self.layer.out_bits if self.is_codes else 1),
                words=words,
            )
        )
        self.stores += 1
