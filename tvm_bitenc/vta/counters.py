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
    first, *rest = predicted_layers(program, accelerator)
    return sum(rest, start=first)


def predicted_layers(program: Program, accelerator: Accelerator) -> list[Cycles]:
    """Counters of each layer in one run: its cycles are those behind the end of the layer before."""
    spans = sorted(timeline(program.instructions, accelerator), key=lambda span: span.index)
    lengths = durations(program.instructions, accelerator)
    found, first, before = [], 0, 0
    for layer in program.layers:
        last = first + layer.instructions
        end = max([before, *(span.end for span in spans[first:last])])
        parts = zip(program.instructions[first:last], lengths[first:last])
        found.append(_counted(list(parts), end - before, accelerator))
        first, before = last, end
    return found


def _counted(
    parts: Sequence[tuple[isa.Instruction, int]], cycles: int, accelerator: Accelerator
) -> Cycles:
    """Counters of instructions with their durations, of so many cycles in all."""
    busy = dict.fromkeys(MODULES, 0)
    for instruction, duration in parts:
        busy[instruction.module] += duration
    loads = [x for x, _ in parts if isinstance(x, isa.Load)]
    return Cycles(
        cycles=cycles,
        **busy,
        steps=sum(steps_of(x, accelerator) for x, _ in parts if isinstance(x, isa.Conv)),
        reads=isa.INSTRUCTION_WORDS * len(parts) + sum(x.rows * x.pixels * x.words for x in loads),
        writes=sum(x.rows * x.words for x, _ in parts if isinstance(x, isa.Store)),
    )


def steps_of(conv: isa.Conv, accelerator: Accelerator) -> int:
    """Cycles in which the array counts bits."""
    return -(-conv.pixels // accelerator.pixels) * conv.passes * conv.taps * conv.words
