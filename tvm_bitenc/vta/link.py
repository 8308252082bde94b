"""Layers one behind the other, at their places in memory: a program."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from . import isa
from .placed import Placed
from .program import Input, Layer, Output, Program
from .sequencer import Sequencer
from .stream import CONSTANTS, DOUBLE, FLOATS, OUTPUT, Fragment
from .window_packing import WindowPacking


@dataclass(frozen=True, eq=False)
class Piece:
    """A layer that is compiled, but has no places in memory.

    Parameters
    ----------
    fragment : Fragment
    outputs : tuple of Output
        What it writes: one thing, or codes and float32 numbers. Addresses are still 0.
    packing : WindowPacking, optional
        How the CPU packs its input.
    """

    fragment: Fragment
    outputs: tuple[Output, ...]
    packing: WindowPacking | None = None


def link_layer(piece: Piece) -> Program:
    """Return the program of one layer: its input, its residual and its output follow each other."""
    fragment = piece.fragment
    operands = [fragment.source.segments[0].tensor]
    operands += [] if fragment.residual is None else [fragment.residual]
    inputs, addresses, end = list[Input](), dict[str, int](), 0
    for operand, tensor in enumerate(operands):
        packing = piece.packing if operand == 0 else None
        inputs.append(Input(operand, end, tensor.size, packing))
        addresses[tensor.name] = end
        end += tensor.size
    outputs = []
    for name, output in zip((OUTPUT, FLOATS), piece.outputs):
        addresses[name] = end
        outputs.append(replace(output, address=end))
        end += output.words
    return link([fragment], addresses, end, inputs, outputs)


def link(
    fragments: Sequence[Fragment],
    addresses: Mapping[str, int],
    tensor_words: int,
    inputs: Iterable[Input],
    outputs: Iterable[Output],
) -> Program:
    """Join layers, and make their addresses absolute.

    Layers overlap: loads of one begin under the computation of the one before, as soon as the
    buffers, and what was stored of its input, allow it.

    Parameters
    ----------
    fragments : sequence of Fragment
        In the order in which they run.
    addresses : mapping of str to int
        Of tensors, from the beginning of their part of the memory.
    tensor_words : int
        Of that part.
    inputs, outputs : iterable
    """
    lists, relative = _in_sequence(fragments)
    first_constant = isa.INSTRUCTION_WORDS * sum(map(len, lists))
    constants = [fragment.constants for fragment in fragments]
    first_tensor = first_constant + sum(each.size for each in constants)
    places = {name: first_tensor + address for name, address in addresses.items()}
    for number, each in enumerate(constants):
        places[_constants(number)] = first_constant
        first_constant += each.size
    linked = [instruction for instructions in lists for instruction in instructions]
    for index, name in relative.items():
        instruction = linked[index]
        assert isinstance(instruction, (isa.Load, isa.Store))  # Only these have an address.
        linked[index] = replace(instruction, dram=instruction.dram + places[name])
    layers = [Layer(f.name, len(x), f.macs) for f, x in zip(fragments, lists)]
    return Program(
        *(tuple(linked), np.concatenate(constants), tensor_words),
        *(tuple(layers), tuple(inputs), tuple(outputs)),
    )


def _constants(number: int) -> str:
    """Name of a layer's constants among those of all."""
    return f"{CONSTANTS} {number}"


def _in_sequence(
    fragments: Sequence[Fragment],
) -> tuple[list[list[isa.Instruction]], dict[int, str]]:
    """Instructions of all layers with tokens, and what their addresses count from."""
    sequencer, ends = Sequencer(), [0]
    last = dict.fromkeys(DOUBLE, 1)
    for number, fragment in enumerate(fragments):
        names = {
            index: _constants(number) if name == CONSTANTS else name
            for index, name in fragment.relative.items()
        }
        Placed(fragment, names, last).emit(sequencer)
        if number < len(fragments) - 1:
            sequencer.end_layer()
            ends.append(len(sequencer.instructions))
    instructions = sequencer.finish()
    ends.append(len(instructions))
    lists = [instructions[first:last] for first, last in itertools.pairwise(ends)]
    return lists, sequencer.relative
