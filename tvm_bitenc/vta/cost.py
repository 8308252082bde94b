"""Cycle model: when each instruction runs, from durations and tokens, without data."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ..accelerator import Accelerator
from . import isa
from .functional import GIVES, MODULES, TAKES

# Behind a popcount of one stage; each further one is a cycle more.
_IN_ARRAY = 6  # From a tile's last step to that of the next, at least.
_PIPELINE = 7  # From the issue of a tile's last step to its epilogue.
_SETTLE = 2  # What the epilogue needs between tiles, where its units use the same tables.


@dataclass(frozen=True)
class Span:
    """One instruction in time: cycles `start` to `end`, its place in the program, its module."""

    index: int
    module: str
    name: str
    start: int
    end: int


def durations(program: Sequence[isa.Instruction], accelerator: Accelerator) -> list[int]:
    """Cycles of each instruction by itself."""
    found, copies = [], 1
    for instruction in program:
        if isinstance(instruction, isa.Copies):
            copies = instruction.count
        found.append(_duration(instruction, accelerator, copies))
    return found


def _duration(x: isa.Instruction, accelerator: Accelerator, copies: int) -> int:
    if isinstance(x, isa.Load):
        words = x.rows * x.pixels * x.words
        return words + accelerator.latency + 1 if words else 1
    if isinstance(x, isa.Store):
        return x.rows * x.words + 1
    if not isinstance(x, isa.Conv):
        return 1
    return _tiles(x, accelerator, copies)


def _tiles(x: isa.Conv, accelerator: Accelerator, copies: int) -> int:
    """Tiles follow each other as fast as steps, lanes or epilogue allow, whichever is slowest."""
    lanes, tiles = accelerator.pixels, -(-x.pixels // accelerator.pixels)
    steps = x.passes * x.taps * x.words
    residual = 0 if isinstance(x, isa.Pool) else lanes * x.residual_bits
    words = accelerator.accumulator_words(16 if x.narrow else 32)
    search = lanes * (copies * x.bits or words)
    epilogue = max(residual - lanes, 0) + search
    epilogue += _SETTLE if residual or isinstance(x, isa.Pool) else 0
    later = accelerator.stages - 1
    interval = max(steps, lanes + 1, epilogue, _IN_ARRAY + later)
    return lanes + 3 + (tiles - 1) * interval + steps + _PIPELINE + later + residual + search


def timeline(program: Sequence[isa.Instruction], accelerator: Accelerator) -> list[Span]:
    """Spans of all instructions, in the order in which they start within their module.

    The memory port serves load and store as if each had it alone.
    """
    fetch = isa.INSTRUCTION_WORDS + accelerator.latency + 1
    queues: dict[str, deque[tuple[int, isa.Instruction]]] = {m: deque() for m in MODULES}
    for index, instruction in enumerate(program):
        queues[instruction.module].append((index, instruction))
    tokens: dict[str, deque[int]] = {queue: deque() for queue in TAKES.values()}
    lengths = durations(program, accelerator)
    free, progress = dict.fromkeys(MODULES, 0), True
    spans: list[Span] = []
    while progress:
        progress = False
        for module, queue in queues.items():
            while queue:
                index, x = queue[0]
                taken = [q for (m, flag), q in TAKES.items() if m == module and getattr(x, flag)]
                if not all(tokens[q] for q in taken):
                    break
                times = [tokens[q].popleft() for q in taken]
                start = max(free[module], (index + 1) * fetch, *times, 0) + 1
                end = start + lengths[index]
                for (m, flag), q in GIVES.items():
                    if m == module and getattr(x, flag):
                        tokens[q].append(end)
                free[module], progress = end, True
                spans.append(Span(index, module, x.name, start, end))
                queue.popleft()
    return spans


def cycles(program: Sequence[isa.Instruction], accelerator: Accelerator) -> int:
    """Predicted cycles of a program."""
    return max(span.end for span in timeline(program, accelerator))
