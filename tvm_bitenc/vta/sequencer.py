"""Instructions in order, each waiting for what it depends on, by what it reads and writes.

Load, compute and store run their instructions in order, and tokens count. So whoever waits for a
computation waits for all before it, and a load that needs what was stored waits for a computation
which saw that the store was done.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from ..accelerator import BUFFERS
from . import isa

Rows = tuple[int, int]  # First row or word, and the one behind the last.


@dataclass(eq=False)
class Sequencer:
    """Instructions so far, and what is known about them.

    Computations are convolutions, poolings and waits; stores are those that give a token. Both are
    numbered from 1 on.

    Parameters
    ----------
    instructions : list of Instruction
    relative : dict of int to str
        Per instruction with an address, the name of what it counts from.
    places : list of int
        Of each computation among the instructions.
    seen : list of int
        How many stores are known to be done when so many computations are.
    stores : int
    """

    instructions: list[isa.Instruction] = field(default_factory=list)
    relative: dict[int, str] = field(default_factory=dict)
    places: list[int] = field(default_factory=list)
    seen: list[int] = field(default_factory=lambda: [0])
    stores: int = 0
    _awaited: list[int] = field(default_factory=list)  # Computations that loads wait for, rising.
    _readers: dict[str, list[tuple[Rows, int]]] = field(default_factory=dict)
    _writers: dict[str, list[tuple[Rows, int]]] = field(default_factory=dict)
    _loads: int = 0  # That no computation waits for yet.

    @property
    def computed(self) -> int:
        """How many computations there are."""
        return len(self.places)

    def load(self, load: isa.Load, name: str, rows: Rows, words: Rows) -> None:
        """Append a load, which waits until nothing reads the rows of its buffer any more.

        Parameters
        ----------
        load : Load
            Its tokens are set here.
        name : str
            Of the tensor, or of the constants, that its address counts from.
        rows : (first, end)
            Of the buffer, that it overwrites.
        words : (first, end)
            Of the tensor, that it reads: it waits until they are stored.
        """
        stored = _last(self._writers.get(name, ()), words)
        free = _last(self._readers.get(BUFFERS[load.buffer], ()), rows)
        computed = max(self._computation_that_saw(stored), free)
        pops = computed > max(self._awaited, default=0)
        if pops:
            self._awaited.append(computed)
        self.relative[len(self.instructions)] = name
        tokens = dict(pop_prev=0, pop_next=int(pops), push_prev=0, push_next=0)
        self.instructions.append(replace(load, **tokens))
        self._loads += 1

    def _computation_that_saw(self, store: int) -> int:
        """Return the first computation after which a store is known to be done."""
        while self.seen[-1] < store:
            self.wait()
        return next(i for i, seen in enumerate(self.seen) if seen >= store)

    def wait(self) -> None:
        """Let the compute module wait for one more store."""
        self._add_computation(isa.Wait(pop_next=1), self.seen[-1] + 1)

    def compute(self, instruction: isa.Conv, reads: dict[str, Rows], writes: Rows) -> None:
        """Append a convolution or pooling.

        Parameters
        ----------
        instruction : Conv
            Its tokens are set here.
        reads : dict of str to (first, end)
            Rows of buffers.
        writes : (first, end)
            Rows of the out buffer; it waits until they are stored.
        """
        stored = _last(self._readers.get("out", ()), writes)
        while self.seen[-1] < stored - 1:
            self.wait()
        pops = self.seen[-1] < stored
        waits = int(self._loads > 0)
        if waits:
            self._give_token()
        tokens = dict(pop_prev=waits, pop_next=int(pops), push_prev=0, push_next=0)
        self._add_computation(replace(instruction, **tokens), self.seen[-1] + pops)
        for buffer, rows in reads.items():
            readers = [each for each in self._readers.get(buffer, []) if each[0] != rows]
            self._readers[buffer] = [*readers, (rows, self.computed)]

    def _give_token(self) -> None:
        """Let the last load give the token that a computation waits for."""
        last = max(i for i, x in enumerate(self.instructions) if isinstance(x, isa.Load))
        self.instructions[last] = replace(self.instructions[last], push_next=1)
        self._loads = 0

    def _add_computation(self, instruction: isa.Instruction, seen: int) -> None:
        self.places.append(len(self.instructions))
        self.seen.append(seen)
        self.instructions.append(instruction)

    def store(self, stores: Sequence[tuple[isa.Store, str]], rows: Rows) -> None:
        """Append stores of what the last computation completes.

        Parameters
        ----------
        stores : sequence of (Store, name of the tensor)
            Tokens are set here.
        rows : (first, end)
            Of the out buffer.
        """
        self.stores += 1
        last = self.places[-1]
        self.instructions[last] = replace(self.instructions[last], push_next=1)
        for i, (x, name) in enumerate(stores):
            tokens = dict(pop_prev=int(i == 0), push_prev=int(i == len(stores) - 1))
            self.relative[len(self.instructions)] = name
            self.instructions.append(replace(x, **tokens))
            self._writers.setdefault(name, []).append((words_of(x), self.stores))
        readers = [each for each in self._readers.get("out", []) if each[0] != rows]
        self._readers["out"] = [*readers, (rows, self.stores)]

    def set_up(self, setup: isa.Setup) -> None:
        """Append what the computations to come share."""
        self.instructions.append(setup)

    def end_layer(self) -> None:
        """Mark that all computations of a layer are in front."""
        self.instructions.append(isa.Wait())

    def finish(self) -> list[isa.Instruction]:
        """End the program, and return its instructions with all tokens."""
        while self.seen[-1] < self.stores - 1:
            self.wait()
        self.instructions.append(isa.Finish(pop_next=int(self.seen[-1] < self.stores)))
        for number in self._awaited:
            place = self.places[number - 1]
            self.instructions[place] = replace(self.instructions[place], push_prev=1)
        return self.instructions


def words_of(x: isa.Load | isa.Store) -> Rows:
    """Range in which the words lie that it reads or writes, from where its address counts."""
    last = x.dram + (x.rows - 1) * x.row_words + x.words
    if isinstance(x, isa.Load):
        last += (x.pixels - 1) * x.pixel_words
    return x.dram, last


def _last(uses: Iterable[tuple[Rows, int]], rows: Rows) -> int:
    """Number of the last use of any of these rows; 0 for none."""
    first, end = rows
    return max((number for (low, high), number in uses if low < end and first < high), default=0)
