"""A program as text, as compiled models carry it: base64 of 64-bit words.

::

    "VTA" and version | sizes of the accelerator | sizes of the program | instructions | constants
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import astuple, fields

import numpy as np

from ..accelerator import Accelerator
from ..errors import LibraryError
from . import isa
from .program import Program
from .window_packing import SIZES, decode, encode

MAGIC = 0x0003_0041_5456  # "VTA" in the lowest bytes, version 3 above.
_WORD = np.dtype("<u8")
_SIZES = len(fields(Accelerator))


def dumps(program: Program, accelerator: Accelerator) -> str:
    """Return a program, and the accelerator that it is for, as text."""
    instructions = [isa.encode(x) for x in program.instructions]
    words_of = (program.constants.size, program.input_words, program.output_words)
    counts = (program.macs, program.copies, program.narrow, program.spacing)
    sizes = (len(instructions), *words_of, *counts, *encode(program.packing))
    header = np.array([MAGIC, *astuple(accelerator), *sizes], _WORD)
    words = np.concatenate([header, *instructions, program.constants])
    return base64.b64encode(words.astype(_WORD).tobytes()).decode("ascii")


def loads(text: str) -> tuple[Program, Accelerator]:
    """Inverse of `dumps`.

    Raises
    ------
    LibraryError
        If the text isn't a whole program.
    """
    try:
        words = np.frombuffer(base64.b64decode(text, validate=True), _WORD).astype(np.uint64)
    except (binascii.Error, ValueError):
        raise _damaged("isn't base64 of 64-bit words") from None
    head = 1 + _SIZES + 8 + SIZES
    if len(words) < head or words[0] != MAGIC:
        raise _damaged("isn't a program of this version")
    accelerator = Accelerator(*map(int, words[1 : 1 + _SIZES]))
    sizes = tuple(map(int, words[1 + _SIZES : head]))
    count, constants, read, written, macs, copies, narrow, spacing = sizes[:-SIZES]
    end = head + count * isa.INSTRUCTION_WORDS
    if len(words) != end + constants:
        raise _damaged("is truncated")
    lines = words[head:end].reshape(count, isa.INSTRUCTION_WORDS)
    instructions = tuple(isa.decode(line) for line in lines)
    packing = decode(sizes[-SIZES:])
    numbers = read, written, macs, copies, bool(narrow)
    return Program(instructions, words[end:], *numbers, packing, spacing), accelerator


def _damaged(cause: str) -> LibraryError:
    return LibraryError("accelerator program", cause, "Compile the model again")
