"""Cycle model: when each instruction runs, from durations and tokens, without data."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ..accelerator import Accelerator
from . import isa
from .floats import CONSTANTS as FLOAT_CONSTANTS
from .functional import GIVES, MODULES, TAKES

# Behind a popcount of one stage; each further one is a cycle more.
_IN_ARRAY = 6  # From a tile's last step to that of the next, at least.
_PIPELINE = 7  # From the issue of a tile's last step to its epilogue.
_FLOAT_PIPELINE = 23  # From a tile's last accumulator among floats to its number.
_FLOAT_SETTLE = 4
_SETTLE = 2  # What the epilogue needs between tiles, where its units use the same tables.
_PORT = 2  # From a word's request inside to memory and back, besides the memory's latency.
_AHEAD = 8  # Instructions that fetch reads ahead.
_LOADS = 5  # Whose words may be on their way.
_BEGIN, _END = 2, 2  # From start to the first request, from finish to done.


@dataclass(frozen=True)
class Span:
    """One instruction in time: cycles `start` to `end`, its place in the program, its module.

    A load or store begins while the words of the one before are on their way.
    """

    index: int
    module: str
    name: str
    start: int
    end: int


def durations(program: Sequence[isa.Instruction], accelerator: Accelerator) -> list[int]:
    """Cycles of each instruction by itself."""
    found, setup = [], isa.Setup(copies=1)
    for instruction in program:
        if isinstance(instruction, isa.Setup):
            setup = instruction
        found.append(_duration(instruction, accelerator, setup))
    return found


def _duration(x: isa.Instruction, accelerator: Accelerator, setup: isa.Setup) -> int:
    if isinstance(x, (isa.Load, isa.Store)):
        words = words_of(x)
        return _transfer(words, accelerator) + accelerator.latency + _PORT if words else 1
    if not isinstance(x, isa.Conv):
        return 1
    return _tiles(x, accelerator, setup)


def words_of(x: isa.Load | isa.Store) -> int:
    """Words that a load reads or a store writes."""
    return x.rows * x.words * (x.pixels if isinstance(x, isa.Load) else 1)


def _transfer(words: int, accelerator: Accelerator) -> int:
    """Cycles from the first request of so many words to the last.

    When as many as may be outstanding are, the next ones wait for their answers.
    """
    limit = accelerator.outstanding
    rounds, rest = divmod(words - 1, limit)
    return rounds * max(limit, accelerator.latency + _PORT) + rest + 1


def _tiles(x: isa.Conv, accelerator: Accelerator, setup: isa.Setup) -> int:
    """Tiles follow each other as fast as steps, lanes or epilogue allow, whichever is slowest."""
    lanes, tiles = accelerator.pixels, -(-x.pixels // accelerator.pixels)
    steps = x.taps * setup.words
    residual = 0 if isinstance(x, isa.Pool) else lanes * x.residual_bits
    words = accelerator.accumulator_words(16 if x.narrow else 32)
    search = lanes * (setup.copies * x.bits or words)
    epilogue = max(residual - lanes, 0) + search
    epilogue += _SETTLE if residual or isinstance(x, isa.Pool) else 0
    begin = lanes + 3 + steps
    if setup.is_float:
        constants = FLOAT_CONSTANTS * accelerator.channels // accelerator.float_units
        begin = max(begin, constants + _FLOAT_SETTLE)
        written = lanes * words if setup.writes_floats else 0
        search, numbers = lanes * x.bits, lanes * accelerator.channels // accelerator.float_units
        epilogue = max(numbers, written + search) + _FLOAT_SETTLE
        residual = numbers + _FLOAT_PIPELINE
    later = accelerator.stages - 1
    interval = max(steps, lanes + 1, epilogue, _IN_ARRAY + later)
    return begin + (tiles - 1) * interval + _PIPELINE + later + residual + search


def timeline(program: Sequence[isa.Instruction], accelerator: Accelerator) -> list[Span]:
    """Spans of all instructions, in the order in which they start within their module."""
    machine = _Machine(program, accelerator)
    while any([machine.fetch(), *(machine.step(module) for module in MODULES)]):
        pass
    return machine.spans


def cycles(program: Sequence[isa.Instruction], accelerator: Accelerator) -> int:
    """Predicted cycles of a program."""
    return _END + max(span.end for span in timeline(program, accelerator))


class _Machine:
    """When modules take their instructions, and what they have given to each other."""

    def __init__(self, program: Sequence[isa.Instruction], accelerator: Accelerator):
        self.program, self.accelerator = program, accelerator
        self.delay = accelerator.latency + _PORT
        self.spans: list[Span] = []
        self.requested = [_BEGIN]  # When the last word of each instruction was asked for.
        self.dispatched: list[int] = []
        self.queues: dict[str, list[int]] = {module: [] for module in MODULES}  # Of all times.
        self.taken: dict[str, list[int]] = {module: [] for module in MODULES}
        self.lengths = durations(program, accelerator)
        self.free = dict.fromkeys(MODULES, 0)
        self.tokens: dict[str, deque[int]] = {queue: deque() for queue in TAKES.values()}
        self.ends: dict[str, list[int]] = {module: [] for module in MODULES}
        self.fetched = 0  # Instructions that came before the next load's words.

    def fetch(self) -> bool:
        """Hand over as many instructions as the queues are known to have room for."""
        before = len(self.dispatched)
        for index in range(before, len(self.program)):
            module = self.program[index].module
            place = len(self.queues[module]) - self.accelerator.instruction_queue
            if place >= len(self.taken[module]):
                break
            room = self.taken[module][place] if place >= 0 else 0
            moved = self.dispatched[index - _AHEAD] if index >= _AHEAD else 0
            self.requested.append(max(self.requested[-1], moved) + isa.INSTRUCTION_WORDS)
            last = self.dispatched[-1] if self.dispatched else 0
            complete = max(self.requested[-1] + self.delay, last + isa.INSTRUCTION_WORDS)
            self.dispatched.append(max(complete, room) + 1)
            self.queues[module].append(index)
        return len(self.dispatched) > before

    def step(self, module: str) -> bool:
        """Run a module's next instruction, if it is there with its tokens."""
        place = len(self.taken[module])
        if place == len(self.queues[module]):
            return False
        index = self.queues[module][place]
        x = self.program[index]
        queues = [q for (m, flag), q in TAKES.items() if m == module and getattr(x, flag)]
        if not all(self.tokens[q] for q in queues):
            return False
        times = [self.tokens[q].popleft() for q in queues]
        if module != "compute" and len(self.ends[module]) >= _LOADS:
            times.append(self.ends[module][-_LOADS])
        start = max(self.free[module], self.dispatched[index], *times) + 1
        self.taken[module].append(start)
        end = self._run(index, x, start)
        self.ends[module].append(end)
        for (m, flag), q in GIVES.items():
            if m == module and getattr(x, flag):
                self.tokens[q].append(end)
        self.spans.append(Span(index, module, x.name, start, end))
        return True

    def _run(self, index: int, x: isa.Instruction, start: int) -> int:
        """When it ends; `free` is when its module can begin another one."""
        end = start + self.lengths[index]
        if isinstance(x, (isa.Load, isa.Store)) and (words := words_of(x)):
            if x.module == "load":  # Instructions come first by the same port.
                fetched = min(index + 1 + _AHEAD, len(self.program))
                words += isa.INSTRUCTION_WORDS * (fetched - self.fetched)
                self.fetched = fetched
            share = max(1, self.delay / self.accelerator.outstanding)
            end = max(end, self.free[x.module] + round(words * share) + self.delay)
            self.free[x.module] = end - self.delay
        else:
            self.free[x.module] = end
        return end
