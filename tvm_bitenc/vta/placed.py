"""A layer's instructions as a sequencer takes them: which rows and words each reads and writes."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile

from ..accelerator import BUFFERS
from . import isa
from .sequencer import Rows, Sequencer, words_of
from .stream import DOUBLE, Fragment

_FIRST = ("weight", "param")  # Loads that depend on no other layer.


class Placed:
    """A layer, whose halves of the buffers change places where the layer before ended in the first.

    Parameters
    ----------
    fragment : Fragment
    names : dict of int to str
        What the addresses of its instructions count from.
    last : dict of str to int
        Which half of each buffer the layer before used last; that of this one when it is emitted.
    """

    def __init__(self, fragment: Fragment, names: dict[int, str], last: dict[str, int]):
        self.fragment, self.names, self.last = fragment, names, last
        self.turned = {buffer for buffer in fragment.halves if last[buffer] == 0}

    def emit(self, sequencer: Sequencer) -> None:
        """Append all instructions; the first weights come first behind another layer."""
        found = list(enumerate(self.fragment.instructions))
        if sequencer.computed:
            loads = [*takewhile(lambda pair: not isinstance(pair[1], isa.Conv), found)]
            found[: len(loads)] = sorted(loads, key=lambda pair: not self._is_first(pair[1]))
        for index, x in found:
            match x:
                case isa.Load():
                    self._load(sequencer, x, self.names[index])
                case isa.Conv():
                    self._compute(sequencer, x)
                case isa.Setup():
                    sequencer.set_up(x)
                case isa.Store():
                    row = self._row("out", x.sram)
                    rows = self._region("out", row)
                    sequencer.store(replace(x, sram=row), self.names[index], rows)

    def _is_first(self, x: isa.Instruction) -> bool:
        return isinstance(x, isa.Load) and BUFFERS[x.buffer] in _FIRST

    def _row(self, buffer: str, row: int) -> int:
        """Row of a buffer where its halves may have changed places."""
        half = self.fragment.accelerator.rows(buffer) // 2
        if buffer not in self.turned:
            return row
        return row - half if row >= half else row + half

    def _region(self, buffer: str, row: int) -> Rows:
        """The half in which a row lies, or all of the buffer."""
        size = self.fragment.accelerator.rows(buffer)
        if buffer not in self.fragment.halves:
            return 0, size
        half = size // 2
        first = row // half * half
        self.last[buffer] = row // half
        return first, first + half

    def _load(self, sequencer: Sequencer, x: isa.Load, name: str) -> None:
        buffer = BUFFERS[x.buffer]
        moved = replace(x, sram=self._row(buffer, x.sram))
        sequencer.load(moved, name, self._region(buffer, moved.sram), words_of(x))

    def _compute(self, sequencer: Sequencer, x: isa.Conv) -> None:
        has_residual = self.fragment.residual is not None
        read = {"act", "tap", "pass"}
        read |= set() if isinstance(x, isa.Pool) else {"weight", "param"}
        read |= {"residual"} if has_residual else set()
        rows = {buffer: self._row(buffer, getattr(x, buffer)) for buffer in DOUBLE}
        reads = {buffer: self._region(buffer, rows.get(buffer, 0)) for buffer in sorted(read)}
        sequencer.compute(replace(x, **rows), reads, self._region("out", rows["out"]))
