"""What a program costs by the cycle model, as the Verilog would count it."""

from __future__ import annotations

from collections.abc import Sequence

from ..accelerator import Accelerator
from . import isa
from .cost import durations, timeline
from .functional import MODULES
from .program import Program
from .work import Cycles


def predicted(program: Program, accelerator: Accelerator) -> Cycles:
    """Counters of one run; words of memory and steps of the array are exact."""
    instructions = program.instructions
    spans = timeline(instructions, accelerator)
    busy = dict.fromkeys(MODULES, 0)
    for instruction, cycles in zip(instructions, durations(instructions, accelerator)):
        busy[instruction.module] += cycles
    loads = [x for x in instructions if isinstance(x, isa.Load)]
    return Cycles(
        cycles=max(span.end for span in spans),
        **busy,
        steps=sum(steps_of(instructions, accelerator)),
        reads=isa.INSTRUCTION_WORDS * len(instructions)
        + sum(x.rows * x.pixels * x.words for x in loads),
        writes=sum(x.rows * x.words for x in instructions if isinstance(x, isa.Store)),
    )


def steps_of(instructions: Sequence[isa.Instruction], accelerator: Accelerator) -> list[int]:
    """Cycles in which the array counts bits, of each computation."""
    found, words = [], 0
    for x in instructions:
        if isinstance(x, isa.Setup):
            words = x.words
        if isinstance(x, isa.Conv):
            found.append(-(-x.pixels // accelerator.pixels) * x.taps * words)
    return found
