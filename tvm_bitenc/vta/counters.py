"""What a program costs by the cycle model, as the Verilog would count it."""

from __future__ import annotations

from collections.abc import Sequence

from ..accelerator import Accelerator
from . import isa
from .cost import Span, cycles, timeline, words_of
from .functional import MODULES
from .program import Program
from .work import Cycles


def predicted(program: Program, accelerator: Accelerator) -> Cycles:
    """Counters of one run; words of memory and steps of the array are exact."""
    first, *rest = predicted_layers(program, accelerator)
    return sum(rest, start=first)


def predicted_layers(program: Program, accelerator: Accelerator) -> list[Cycles]:
    """Counters of each layer in one run: its cycles begin with the end of the layer before."""
    instructions = program.instructions
    spans = sorted(timeline(instructions, accelerator), key=lambda span: span.index)
    found, first, before = [], 0, 0
    for layer in program.layers:
        last = first + layer.instructions
        own = spans[first:last]
        end = max([before, *(span.end for span in own)])
        if last == len(instructions):
            end = cycles(instructions, accelerator)
        found.append(_counted(instructions[first:last], own, end - before, accelerator))
        first, before = last, end
    return found


def _counted(
    instructions: Sequence[isa.Instruction],
    spans: Sequence[Span],
    cycles: int,
    accelerator: Accelerator,
) -> Cycles:
    """Counters of a part of a program, of so many cycles."""
    loads = [x for x in instructions if isinstance(x, isa.Load)]
    return Cycles(
        cycles=cycles,
        **{module: _busy([x for x in spans if x.module == module]) for module in MODULES},
        steps=sum(steps_of(instructions, accelerator)),
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


def steps_of(instructions: Sequence[isa.Instruction], accelerator: Accelerator) -> list[int]:
    """Cycles in which the array counts bits, of each computation."""
    found, words = [], 0
    for x in instructions:
        if isinstance(x, isa.Setup):
            words = x.words
        if isinstance(x, isa.Conv):
            found.append(-(-x.pixels // accelerator.pixels) * x.taps * words)
    return found
