"""Instruction set: 256-bit instructions, their text, and the header that the Verilog includes.

docs/accelerator.md says what each instruction does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar

import numpy as np

from ..accelerator import BUFFERS
from ..encoding import WORD_BITS
from ..errors import BitencError

INSTRUCTION_WORDS = 4
_OPCODE_BITS = 4
LOOKUP_BITS = 9  # See `Conv.depthwise`.
MAX_COPIES = 16  # As many signs a channel has.


class InstructionError(BitencError):
    """An instruction that doesn't exist, or a field that doesn't hold its value."""


def _bits(width: int, default: int = 0):
    return field(default=default, metadata={"bits": width})


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """What all instructions share: tokens to take before, and to give after.

    Parameters
    ----------
    pop_prev, pop_next : int
        1 waits for a token of the module in front of (load < compute < store) or behind this one.
    push_prev, push_next : int
        1 gives a token to that module when the instruction is done.
    """

    name: ClassVar[str]
    opcode: ClassVar[int]
    module: ClassVar[str]

    pop_prev: int = _bits(1)
    pop_next: int = _bits(1)
    push_prev: int = _bits(1)
    push_next: int = _bits(1)


@dataclass(frozen=True, kw_only=True)
class Load(Instruction):
    """Memory to a buffer: `rows` x `pixels` x `words`, the last contiguous in memory.

    Parameters
    ----------
    buffer : int
        Position in `BUFFERS`; not ``out``.
    sram : int
        First row of the buffer.
    dram : int
        Address of the first word.
    rows, pixels, words : int
        Sizes of the loops, outermost first.
    row_words, pixel_words : int
        Words in memory from one row, one pixel to the next.
    first_pixel, row_pixels : int
        ``act`` only: index of the first pixel, and from one row to the next.
    word_rows : int
        ``act`` only: buffer rows from one word of a pixel to the next; with DK of 128 and 256 from
        the first of 2 or 4 words, which share a row, to the next first one.
    pixel_step : int
        ``act`` only: index from one pixel to the next, less 1.
    """

    name = "load"
    opcode = 1
    module = "load"

    buffer: int = _bits(3)
    sram: int = _bits(14)
    dram: int = _bits(32)
    rows: int = _bits(14)
    row_words: int = _bits(24)
    pixels: int = _bits(14)
    pixel_words: int = _bits(16)
    words: int = _bits(12)
    first_pixel: int = _bits(16)
    row_pixels: int = _bits(14)
    word_rows: int = _bits(14)
    pixel_step: int = _bits(4)


@dataclass(frozen=True, kw_only=True)
class Store(Instruction):
    """The ``out`` buffer to memory: `rows` runs of `words` words, one run every `row_words`."""

    name = "store"
    opcode = 2
    module = "store"

    sram: int = _bits(14)
    dram: int = _bits(32)
    rows: int = _bits(16)
    row_words: int = _bits(24)
    words: int = _bits(12)


@dataclass(frozen=True, kw_only=True)
class Conv(Instruction):
    """Convolve DM output channels over a run of output pixels.

    Parameters
    ----------
    act, weight, param, out, residual : int
        First rows of the operands in their buffers.
    word_rows : int
        Rows of ``act`` from one word of a pixel to the next.
    passes, taps : int
        Lines of the pass table and the tap table, from those on that `Setup` says.
    pixels : int
        Output pixels, row by row from column 0 of `first_row`.
    first_row, out_width : int
    in_height, in_width : int
        Taps outside the image read zeros.
    stride_y, stride_x : int
    row_pixels : int
        Pixel index in ``act`` from one output row to the next; equal to out_width modulo DN.
    row_low, row_high, column_low, column_high : int
        Border classes: rows below `row_low` and from `row_high` on have one each.
    thresholds : int
        Rows from `param` to the thresholds, behind the border classes, in the order of
        `threshold_rows`.
    bits : int
        Bits of the output codes; 0 writes 32-bit accumulators.
    sub_word : int
        Which DM bits of each output word to write; 0 clears the others.
    residual_bits : int
        Bits of the residual's codes; 0 for none. Plane b of pixel p is in row `residual` + p
        `residual_bits` + b, in part `sub_word`. Every code has thresholds of its own, so that the
        output is any function of both that rises with the accumulator.
    narrow : int
        With `bits` = 0: 1 writes the lowest 16 bits of each accumulator, four a word.
    depthwise : int
        1 counts per word of channel i one of two numbers of `LOOKUP_BITS` in place of
        differing bits: the lowest ones of its weight word, the second where bit i of part
        `sub_word` of the 64 bits around the pass's nibble `first` is 1.
    out_part : int
        See `Setup.pixel_rows`.
    """

    name = "conv"
    opcode = 3
    module = "compute"

    act: int = _bits(14)
    word_rows: int = _bits(14)
    weight: int = _bits(14)
    param: int = _bits(14)
    out: int = _bits(14)
    passes: int = _bits(7)
    taps: int = _bits(9)
    pixels: int = _bits(14)
    first_row: int = _bits(11)
    out_width: int = _bits(11)
    in_height: int = _bits(11)
    in_width: int = _bits(11)
    stride_y: int = _bits(4)
    stride_x: int = _bits(4)
    row_pixels: int = _bits(14)
    row_low: int = _bits(6)
    row_high: int = _bits(11)
    column_low: int = _bits(6)
    column_high: int = _bits(11)
    thresholds: int = _bits(12)
    bits: int = _bits(4)
    sub_word: int = _bits(6)
    residual: int = _bits(14)
    residual_bits: int = _bits(4)
    narrow: int = _bits(1)
    depthwise: int = _bits(1)
    out_part: int = _bits(6)


@dataclass(frozen=True, kw_only=True)
class Pool(Conv):
    """Largest code under each window, of DM channels: part `sub_word` of an input word.

    Fields are those of `Conv`, and what has to do with weights and thresholds is ignored. The pass
    table holds the planes from the highest down, as many as `bits`, of one word of DK bits each,
    whose 64 bits around nibble `first` are read. Taps outside the image read code 0, which never
    wins.
    """

    name = "pool"
    opcode = 5


@dataclass(frozen=True, kw_only=True)
class Wait(Instruction):
    """Takes and gives tokens in the compute module, no more."""

    name = "wait"
    opcode = 4
    module = "compute"


@dataclass(frozen=True, kw_only=True)
class Setup(Instruction):
    """What convolutions and pools behind it share, up to the next such instruction.

    Copy c of a convolution compares the same accumulators with thresholds of its own, which lie
    behind those of the copy before, and its codes fall where bit c of the channel's signs is 1.
    With more than one, convolutions have no residual and don't end in accumulators, and there are
    no pools.

    Parameters
    ----------
    copies : int
        In how many codes each sum ends, 1 to `MAX_COPIES`; 1 at the start of a program.
    copy_parts : int
        DM bits of an output word from one copy to the next, at most a word.
    copy_rows : int
        Rows of ``out`` from one word to the next: where a copy lies beyond the word of the one
        before, as it does where `copy_parts` are a word.
    first_tap, first_pass : int
        Lines of the tables where theirs begin; 0 at the start of a program.
    pixel_rows : int
        0 where each plane of the codes has words of its own. Otherwise rows of ``out`` from a pixel
        to the next: planes lie side by side, the highest at row `out` and part `out_part` of a
        computation, and only their own bits of a word are written. Such computations end in codes,
        of one copy.
    plane_parts, plane_rows : int
        Where each plane lies in front of the next higher one: so many DM bits, less than a word,
        and so many words.
    words : int
        Of all passes together. The machine finds them in the pass table; the cycle model, which
        knows no data, counts by this number.
    is_float : int
        1 lets convolutions go on in float32, as `floats.py` says: codes are those of numbers,
        compared with thresholds, and come with the numbers or not. They have one copy, no residual
        of codes, and are no pools.
    adds_residual : int
        1 adds words of two float32 numbers: those of a pixel's DM channels are at row `residual`
        + pixel `pixel_words` + `sub_word` DM / 2.
    writes_floats : int
        1 writes the numbers, likewise, from row `out` + `float_rows` on.
    float_rows : int
    pixel_words : int
        Rows from one pixel's numbers to the next one's.
    """

    name = "setup"
    opcode = 6
    module = "compute"

    copies: int = _bits(5)
    copy_parts: int = _bits(7)
    copy_rows: int = _bits(14)
    first_tap: int = _bits(14)
    first_pass: int = _bits(14)
    pixel_rows: int = _bits(6)
    plane_parts: int = _bits(6)
    plane_rows: int = _bits(6)
    words: int = _bits(16)
    is_float: int = _bits(1)
    adds_residual: int = _bits(1)
    writes_floats: int = _bits(1)
    float_rows: int = _bits(14)
    pixel_words: int = _bits(6)


@dataclass(frozen=True, kw_only=True)
class Finish(Instruction):
    """Ends the program, when its tokens have come."""

    name = "finish"
    opcode = 15
    module = "compute"


INSTRUCTIONS = {kind.opcode: kind for kind in (Load, Store, Conv, Wait, Pool, Setup, Finish)}
_BY_NAME = {kind.name: kind for kind in INSTRUCTIONS.values()}

# Lines of the tables: fields of one 64-bit word, lowest first. Signed ones are two's complement.
TAP_FIELDS = (("offset", 20, True), ("dy", 14, True), ("dx", 14, True))
# A pass reads `words` words of DK bits; in the first one, nibbles in front of `first` are taken as
# 0, and in the last one those behind `last`, both modulo DK / 4. Of 32 bits two words share a row
# of ``act``: `upper` begins with the second one.
PASS_FIELDS = (
    ("act", 14, False),
    ("weight", 14, False),
    ("shift", 1, False),
    ("ones", 1, False),
    ("words", 8, False),
    ("first", 6, False),
    ("last", 6, False),
    ("upper", 1, False),
)
NIBBLE_BITS = 4
NIBBLES = WORD_BITS // NIBBLE_BITS
# Of a pass that reads all of a word of 64 bits.
ONE_WORD = {"words": 1, "first": 0, "last": NIBBLES - 1, "upper": 0}


def layout(kind: type[Instruction]) -> list[tuple[str, int, int]]:
    """(field, lowest bit, width) of each field behind the opcode."""
    position, found = _OPCODE_BITS, []
    for each in fields(kind):
        found.append((each.name, position, each.metadata["bits"]))
        position += each.metadata["bits"]
    return found


def encode(instruction: Instruction) -> np.ndarray:
    """Four uint64 words, lowest first.

    Raises
    ------
    InstructionError
        If a value doesn't fit its field.
    """
    number = instruction.opcode
    for name, position, width in layout(type(instruction)):
        value = int(getattr(instruction, name))
        if not 0 <= value < 1 << width:
            raise InstructionError(
                f"{instruction.name}.{name}",
                f"{value} doesn't fit {width} bits",
                "Use a smaller layer, or split it",
            )
        number |= value << position
    mask = (1 << WORD_BITS) - 1
    words = [number >> (WORD_BITS * i) & mask for i in range(INSTRUCTION_WORDS)]
    return np.array(words, np.uint64)


def decode(words: Sequence[int] | np.ndarray) -> Instruction:
    """Inverse of `encode`.

    Raises
    ------
    InstructionError
        For an opcode that no instruction has, or bits set behind the last field.
    """
    number = sum(int(word) << (WORD_BITS * i) for i, word in enumerate(words))
    opcode = number & ((1 << _OPCODE_BITS) - 1)
    if opcode not in INSTRUCTIONS:
        raise InstructionError(
            "instruction", f"no opcode {opcode}", f"Use one of {sorted(INSTRUCTIONS)}"
        )
    kind = INSTRUCTIONS[opcode]
    values = {name: number >> low & ((1 << width) - 1) for name, low, width in layout(kind)}
    instruction = kind(**values)
    if not np.array_equal(encode(instruction), np.array(words, np.uint64)):
        raise InstructionError(kind.name, "bits are set behind its last field", "Clear them")
    return instruction


def encode_line(line: dict[str, int], table: Sequence[tuple[str, int, bool]]) -> int:
    """One line of the tap or pass table as a 64-bit number."""
    number, position = 0, 0
    for name, width, is_signed in table:
        value, low = line[name], -(1 << width - 1) if is_signed else 0
        if not low <= value < low + (1 << width):
            raise InstructionError(name, f"{value} doesn't fit {width} bits", "Use a smaller layer")
        number |= (value & ((1 << width) - 1)) << position
        position += width
    return number


def decode_lines(
    words: np.ndarray, table: Sequence[tuple[str, int, bool]]
) -> dict[str, np.ndarray]:
    """Fields of table lines, int64 each, from uint64 words."""
    found, position = {}, 0
    for name, width, is_signed in table:
        value = (words >> np.uint64(position) & np.uint64((1 << width) - 1)).astype(np.int64)
        found[name] = value - ((value >> width - 1 & 1) << width) if is_signed else value
        position += width
    return found


def threshold_rows(bits: int, residual_bits: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Order of the thresholds behind `Conv.thresholds`, round after round of the binary search.

    Returns
    -------
    code, residual : ndarray of int64
        Per row the code that its threshold reaches, 1 to 2^bits - 1, and the residual's code that
        it is for. All residuals' thresholds of a round are neighbours: row residual 2^round +
        decided bits.
    """
    code, residual = [], []
    for decided in range(bits):
        each, prefix = np.divmod(np.arange(1 << residual_bits + decided), 1 << decided)
        residual.append(each)
        code.append((2 * prefix + 1) << (bits - decided - 1))
    empty = np.zeros(0, np.int64)
    return np.concatenate([empty, *code]), np.concatenate([empty, *residual])


def disassemble(instructions: Iterable[Instruction]) -> str:
    """Text, one instruction a line: its name, then the fields that aren't 0."""
    lines = []
    for instruction in instructions:
        parts = [instruction.name]
        for name, _, _ in layout(type(instruction)):
            value = getattr(instruction, name)
            if name == "buffer" and value < len(BUFFERS):
                parts.append(f"buffer={BUFFERS[value]}")
            elif value:
                parts.append(f"{name}={value}")
        lines.append(" ".join(parts))
    return "\n".join(lines) + "\n"


def assemble(text: str) -> list[Instruction]:
    """Inverse of `disassemble`; empty lines and what follows ``#`` don't count.

    Raises
    ------
    InstructionError
        With the number of the line that can't be read.
    """
    numbered = ((i, line.split("#")[0].split()) for i, line in enumerate(text.splitlines(), 1))
    return [_parse(i, parts) for i, parts in numbered if parts]


def _parse(number: int, parts: list[str]) -> Instruction:
    kind = _BY_NAME.get(parts[0])
    if kind is None:
        raise InstructionError(
            f"line {number}", f"no instruction {parts[0]!r}", f"Use one of {', '.join(_BY_NAME)}"
        )
    known, values = {name for name, _, _ in layout(kind)}, {}
    for part in parts[1:]:
        name, _, value = part.partition("=")
        value = str(BUFFERS.index(value)) if value in BUFFERS else value
        if name not in known or name in values or not value.isdecimal():
            raise InstructionError(f"line {number}", f"can't read {part!r}", "Write field=number")
        values[name] = int(value)
    instruction = kind(**values)
    encode(instruction)
    return instruction


def verilog_header() -> str:
    """Opcodes and field positions, as macros that select bits of an instruction."""
    lines = [f"// Written by {__name__}; don't edit.", "`ifndef ISA_VH", "`define ISA_VH"]
    for opcode, kind in INSTRUCTIONS.items():
        lines.append(f"`define OP_{kind.name.upper()} 4'd{opcode}")
        for name, low, width in layout(kind):
            lines.append(f"`define {kind.name.upper()}_{name.upper()} {low + width - 1}:{low}")
        lines.append(f"`define {kind.name.upper()}_END {low + width}")
    for prefix, table in (("TAP", TAP_FIELDS), ("PASS", PASS_FIELDS)):
        low = 0
        for name, width, _ in table:
            lines.append(f"`define {prefix}_{name.upper()} {low + width - 1}:{low}")
            low += width
    for index, buffer in enumerate(BUFFERS):
        lines.append(f"`define BUFFER_{buffer.upper()} 3'd{index}")
    return "\n".join([*lines, "`endif"]) + "\n"
