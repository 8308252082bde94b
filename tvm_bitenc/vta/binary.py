"""A program as text, as compiled models carry it: base64 of 64-bit words.

::

    "VTA" and version | sizes of the accelerator | counts | layers | inputs | outputs | names
    | instructions | constants
"""

from __future__ import annotations

import base64
import binascii
import itertools
from dataclasses import astuple, fields

import numpy as np

from ..accelerator import Accelerator
from ..errors import LibraryError
from . import isa
from .program import Input, Layer, Output, Program
from .window_packing import SIZES, decode, encode

MAGIC = 0x0005_0041_5456  # "VTA" in the lowest bytes, version 5 above.
KINDS = ("planes", "accumulators", "floats")  # Of outputs.
_WORD = np.dtype("<u8")
_SIZES = len(fields(Accelerator))


def dumps(program: Program, accelerator: Accelerator) -> str:
    """Return a program, and the accelerator that it is for, as text."""
    names = [layer.name.encode() for layer in program.layers]
    text = b"".join(names)
    text += bytes(-len(text) % _WORD.itemsize)
    parts = [list[int](), list[int](), list[int]()]
    for layer, name in zip(program.layers, names):
        parts[0] += [layer.instructions, layer.macs, len(name)]
    for each in program.inputs:
        parts[1] += [each.operand, each.address, each.words, *encode(each.packing)]
    for output in program.outputs:
        segments = [number for segment in output.layout for number in segment]
        sizes = output.address, output.words, KINDS.index(output.kind), output.copies
        parts[2] += [*sizes, output.narrow, output.spacing, len(output.layout), *segments]
    counts = len(program.instructions), program.constants.size, program.tensor_words
    lengths = len(program.layers), len(program.inputs), len(program.outputs)
    header = [MAGIC, *astuple(accelerator), *counts, *lengths, *map(len, parts), len(text)]
    numbers = np.array([*header, *itertools.chain(*parts)], _WORD)
    words = np.concatenate([numbers, np.frombuffer(text, _WORD), program.code])
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
    head = 1 + _SIZES + 10
    if len(words) < head or words[0] != MAGIC:
        raise _damaged("isn't a program of this version")
    accelerator = Accelerator(*map(int, words[1 : 1 + _SIZES]))
    *counts, text_bytes = map(int, words[1 + _SIZES : head])
    lengths = *counts[6:9], text_bytes // _WORD.itemsize, counts[0] * isa.INSTRUCTION_WORDS
    if len(words) != head + sum(lengths) + counts[1]:
        raise _damaged("is truncated")
    parts = np.split(words, np.cumsum([head, *lengths]))
    _, layers, inputs, outputs, names, code, constants = parts
    lines = code.reshape(-1, isa.INSTRUCTION_WORDS)
    try:
        program = Program(
            tuple(isa.decode(line) for line in lines),
            *(constants, counts[2]),
            _layers(layers, names.astype(_WORD).tobytes()),
            _inputs(inputs),
            _outputs(outputs),
        )
    except (ValueError, IndexError):
        raise _damaged("has a damaged header") from None
    return program, accelerator


def _layers(words: np.ndarray, text: bytes) -> tuple[Layer, ...]:
    found, at = [], 0
    for instructions, macs, length in words.reshape(-1, 3).tolist():
        found.append(Layer(text[at : at + length].decode(), instructions, macs))
        at += length
    return tuple(found)


def _inputs(words: np.ndarray) -> tuple[Input, ...]:
    lines = words.reshape(-1, 3 + SIZES).tolist()
    return tuple(Input(a, b, c, decode(tuple(sizes))) for a, b, c, *sizes in lines)


def _outputs(words: np.ndarray) -> tuple[Output, ...]:
    found, rest = [], words.tolist()
    while rest:
        address, size, kind, copies, narrow, spacing, segments, *rest = rest
        layout = tuple((rest[2 * i], rest[2 * i + 1]) for i in range(segments))
        rest = rest[2 * segments :]
        found.append(Output(address, size, layout, KINDS[kind], copies, bool(narrow), spacing))
    return tuple(found)


def _damaged(cause: str) -> LibraryError:
    return LibraryError("accelerator program", cause, "Compile the model again")
