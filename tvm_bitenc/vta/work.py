"""`Cycles` that were counted or predicted, and `Work`: what a layer costs on an accelerator."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from ..accelerator import Accelerator
from ..encoding import WORD_BITS


@dataclass(frozen=True)
class Cycles:
    """Counters of one run.

    Parameters
    ----------
    cycles : int
        From reset to finish.
    load, compute, store : int
        Cycles in which each module worked on an instruction.
    steps : int
        Cycles in which the array counted bits.
    reads, writes : int
        Words of memory.
    """

    cycles: int
    load: int
    compute: int
    store: int
    steps: int
    reads: int
    writes: int

    @property
    def dram_bytes(self) -> int:
        """Memory traffic, instructions included."""
        return (self.reads + self.writes) * WORD_BITS // 8

    def times(self, runs: int) -> Cycles:
        """Counters of so many equal runs."""
        return Cycles(*(runs * value for value in astuple(self)))

    def __add__(self, other: Cycles) -> Cycles:
        return Cycles(*(a + b for a, b in zip(astuple(self), astuple(other))))

    def __sub__(self, other: Cycles) -> Cycles:
        return Cycles(*(a - b for a, b in zip(astuple(self), astuple(other))))

    def utilization(self, macs: int, accelerator: Accelerator) -> float:
        """Binary multiply-accumulates that were needed, of all that the array could do."""
        return macs / (self.cycles * accelerator.macs_per_cycle)


@dataclass(frozen=True)
class Work:
    """Cycles and memory traffic of one layer per run, of one sample where the batch is dynamic.

    Parameters
    ----------
    cycles : int
        From the program's start to its end.
    utilization : float
        Binary multiply-accumulates that the layer needs, of all that the array could do, 0 to 1.
    dram_bytes : int
        Read and written, instructions included.
    load_cycles, compute_cycles, store_cycles : int
        In which each unit works; they overlap.
    binary_macs : int
        One-bit multiply-accumulates: one per pair of planes and multiply-accumulate.
    is_measured : bool
        Counted by the Verilog in the last run; otherwise by the cycle model.
    """

    cycles: int
    utilization: float
    dram_bytes: int
    load_cycles: int
    compute_cycles: int
    store_cycles: int
    binary_macs: int
    is_measured: bool = False


def work_of(cycles: Cycles, binary_macs: int, peak: int, is_measured: bool = False) -> Work:
    """Return the work of counters, on an array that does `peak` binary MACs per cycle."""
    return Work(
        cycles.cycles,
        binary_macs / (cycles.cycles * peak),
        cycles.dram_bytes,
        cycles.load,
        cycles.compute,
        cycles.store,
        binary_macs,
        is_measured,
    )
