"""What a program costs by the cycle model, as the Verilog would count it."""

from __future__ import annotations

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
        steps=sum(steps_of(x, accelerator) for x in instructions if isinstance(x, isa.Conv)),
        reads=isa.INSTRUCTION_WORDS * len(instructions)
        + sum(x.rows * x.pixels * x.words for x in loads),
        writes=sum(x.rows * x.words for x in instructions if isinstance(x, isa.Store)),
    )


def steps_of(conv: isa.Conv, accelerator: Accelerator) -> int:
    """Cycles in which the array counts bits."""
    return -(-conv.pixels // accelerator.pixels) * conv.passes * conv.taps * conv.words
