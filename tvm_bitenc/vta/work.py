"""`Work`: what a layer costs on an accelerator."""

from __future__ import annotations

from dataclasses import dataclass

from .verilator import Cycles


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
