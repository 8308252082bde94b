"""What a program costs by the cycle model, as the Verilog would count it."""

from __future__ import annotations

from ..accelerator import Accelerator
from . import isa
from .cost import Span, cycles, timeline, words_of
from .functional import MODULES
from .program import Program
from .work import Cycles


def predicted(program: Program, accelerator: Accelerator) -> Cycles:
    """Counters of one run; words of memory and steps of the array are exact."""
    instructions = program.instructions
    spans = timeline(instructions, accelerator)
    busy = {module: _busy([x for x in spans if x.module == module]) for module in MODULES}
    loads = [x for x in instructions if isinstance(x, isa.Load)]
    return Cycles(
        cycles=cycles(instructions, accelerator),
        **busy,
        steps=sum(steps_of(x, accelerator) for x in instructions if isinstance(x, isa.Conv)),
        reads=isa.INSTRUCTION_WORDS * len(instructions) + sum(map(words_of, loads)),
        writes=sum(words_of(x) for x in instructions if isinstance(x, isa.Store)),
    )


def _busy(spans: list[Span]) -> int:
    """Cycles in which any of a module's instructions, in order, is under way."""
    cycles, end = 0, 0
    for span in spans:
        cycles += max(span.end - max(span.start, end), 0)
        end = max(span.end, end)
    return cycles


def steps_of(conv: isa.Conv, accelerator: Accelerator) -> int:
    """Cycles in which the array counts bits."""
    return -(-conv.pixels // accelerator.pixels) * conv.passes * conv.taps * conv.words
