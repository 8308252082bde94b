"""Layers one behind the other, at their places in memory: a program."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from . import isa
from .program import Input, Layer, Output, Program
from .stream import CONSTANTS, FLOATS, OUTPUT, Fragment
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

    A layer begins when the one before has stored all that it writes: in place of its `Finish` there
    is a `Wait`, for which the first load of the next layer waits.

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
    lists = [list(fragment.instructions) for fragment in fragments]
    for before, after in itertools.pairwise(lists):
        before[-1] = isa.Wait(pop_next=1, push_prev=1)
        first = next(i for i, x in enumerate(after) if isinstance(x, isa.Load))
        after[first] = replace(after[first], pop_next=1)
    first_constant = isa.INSTRUCTION_WORDS * sum(map(len, lists))
    constants = [fragment.constants for fragment in fragments]
    first_tensor = first_constant + sum(each.size for each in constants)
    linked, place = list[isa.Instruction](), first_constant
    for fragment, instructions in zip(fragments, lists):
        for index, name in fragment.relative.items():
            base = place if name == CONSTANTS else first_tensor + addresses[name]
            instruction = instructions[index]
            assert isinstance(instruction, (isa.Load, isa.Store))  # Only these have an address.
            instructions[index] = replace(instruction, dram=instruction.dram + base)
        linked += instructions
        place += fragment.constants.size
    layers = [Layer(f.name, len(x), f.macs) for f, x in zip(fragments, lists)]
    return Program(
        *(tuple(linked), np.concatenate(constants), tensor_words),
        *(tuple(layers), tuple(inputs), tuple(outputs)),
    )
