"""Instructions in order, each waiting for what it depends on, by what it reads and writes.

Load, compute and store run their instructions in order, and tokens count. So whoever waits for a
computation waits for all before it, and a load that needs what was stored waits for a computation
which saw that the store was done.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..accelerator import BUFFERS
from . import isa

Rows = tuple[int, int]  # First row or word, and the one behind the last.
Uses = dict[str, dict[Rows, int]]  # Number of the last use of rows, by buffer or tensor.


@dataclass(eq=False)
class Sequencer:
    """Instructions so far, and what is known about them.

    Computations are convolutions, poolings and waits; a store is all that one of them completes.
    Both are numbered from 1 on.

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
    _awaited: int = 0  # The last computation that a load waits for.
    _readers: Uses = field(default_factory=dict)
    _writers: Uses = field(default_factory=dict)
    _last_load: int | None = None  # Place of the last one, while no computation waits for it.

    @property
    def computed(self) -> int:
        """How many computations there are."""
        return len(self.places)

    def load(self, load: isa.Load, name: str, rows: Rows, words: Rows) -> None:
        """Append a load, which waits until nothing reads the rows of its buffer any more.

        Parameters
        ----------
        load : Load
            Without tokens, as all that is appended.
        name : str
            Of the tensor, or of the constants, that its address counts from.
        rows : (first, end)
            Of the buffer, that it overwrites.
        words : (first, end)
            Of the tensor, that it reads: it waits until they are stored.
        """
        stored = _last(self._writers.get(name, {}), words)
        free = _last(self._readers.get(BUFFERS[load.buffer], {}), rows)
        computed = max(self._computation_that_saw(stored), free)
        pops = computed > self._awaited
        if pops:
            self._awaited = computed
            self._give(self.places[computed - 1], push_prev=1)
        self._last_load = len(self.instructions)
        self.relative[self._last_load] = name
        self.instructions.append(replace(load, pop_next=int(pops)))

    def _computation_that_saw(self, store: int) -> int:
        """Return the first computation after which a store is known to be done."""
        while self.seen[-1] < store:
            self.wait()
        return bisect_left(self.seen, store)

    def wait(self) -> None:
        """Let the compute module wait for one more store."""
        self._add_computation(isa.Wait(pop_next=1), self.seen[-1] + 1)

    def compute(self, instruction: isa.Conv, reads: Mapping[str, Rows], writes: Rows) -> None:
        """Append a convolution or pooling.

        Parameters
        ----------
        instruction : Conv
        reads : mapping of str to (first, end)
            Rows of buffers.
        writes : (first, end)
            Rows of the out buffer; it waits until they are stored.
        """
        stored = _last(self._readers.get("out", {}), writes)
        while self.seen[-1] < stored - 1:
            self.wait()
        pops = int(self.seen[-1] < stored)
        waits = int(self._last_load is not None)
        if self._last_load is not None:
            self._give(self._last_load, push_next=1)
            self._last_load = None
        tokens = dict(pop_prev=waits, pop_next=pops)
        self._add_computation(replace(instruction, **tokens), self.seen[-1] + pops)
        for buffer, rows in reads.items():
            self._readers.setdefault(buffer, {})[rows] = self.computed

    def _give(self, place: int, **token: int) -> None:
        """Let an instruction give a token as well."""
        self.instructions[place] = replace(self.instructions[place], **token)

    def _add_computation(self, instruction: isa.Instruction, seen: int) -> None:
        self.places.append(len(self.instructions))
        self.seen.append(seen)
        self.instructions.append(instruction)

    def store(self, store: isa.Store, name: str, rows: Rows) -> None:
        """Append a store of what the last computation completes; several follow one another.

        Parameters
        ----------
        store : Store
        name : str
            Of the tensor.
        rows : (first, end)
            Of the out buffer.
        """
        last = len(self.instructions) - 1
        is_first = last == self.places[-1]
        self.stores += is_first
        self._give(last, **({"push_next": 1} if is_first else {"push_prev": 0}))
        self.relative[len(self.instructions)] = name
        self.instructions.append(replace(store, pop_prev=int(is_first), push_prev=1))
        self._writers.setdefault(name, {})[words_of(store)] = self.stores
        self._readers.setdefault("out", {})[rows] = self.stores

    def set_up(self, setup: isa.Setup) -> None:
        """Append what the computations to come share."""
        self.instructions.append(setup)

    def end_layer(self) -> None:
        """Mark that all computations of a layer are in front."""
        self.instructions.append(isa.Wait())

    def finish(self) -> list[isa.Instruction]:
        """End the program, and return its instructions."""
        while self.seen[-1] < self.stores - 1:
            self.wait()
        self.instructions.append(isa.Finish(pop_next=int(self.seen[-1] < self.stores)))
        return self.instructions


def words_of(x: isa.Load | isa.Store) -> Rows:
    """Range in which the words lie that it reads or writes, from where its address counts."""
    last = x.dram + (x.rows - 1) * x.row_words + x.words
    if isinstance(x, isa.Load):
        last += (x.pixels - 1) * x.pixel_words
    return x.dram, last


def _last(uses: Mapping[Rows, int], rows: Rows) -> int:
    """Number of the last use of any of these rows; 0 for none."""
    first, end = rows
    found = (number for (low, high), number in uses.items() if low < end and first < high)
    return max(found, default=0)
