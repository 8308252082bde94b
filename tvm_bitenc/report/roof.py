"""The roofs of this machine: multiply-accumulates per second, and bytes from the cache."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np

from ..limits import clock_ghz, instruction_set, limits

COPIED_BYTES = 1 << 17  # Weights and planes of a layer lie in the core's cache, so this does.
COPIES = 2000


@dataclass(frozen=True)
class Roof:
    """What a machine can do at best.

    Parameters
    ----------
    instruction_set : str
        As `limits.instruction_set` names it.
    clock_ghz : float
        Measured.
    bandwidth : float
        Gigabytes per second that a copy of data in the cache reads and writes.
    threads : int
    """

    instruction_set: str
    clock_ghz: float
    bandwidth: float
    threads: int

    def gmacs(self, strategy: str, weight_bits: int, act_bits: int) -> float | None:
        """Return 10^9 multiply-accumulates per second that a strategy reaches at best, if known."""
        known = limits(self.instruction_set, weight_bits, act_bits, self.clock_ghz * self.threads)
        return known.get(strategy)


def measure_roof(threads: int | None = None) -> Roof:
    """Measure this machine, about a second's work.

    Parameters
    ----------
    threads : int, optional
        That the model uses; default all cores.
    """
    source = np.ones(COPIED_BYTES // 8)
    copy = np.empty_like(source)
    seconds = []
    for _ in range(COPIES):
        start = time.perf_counter()
        np.copyto(copy, source)
        seconds.append(time.perf_counter() - start)
    bandwidth = 2 * COPIED_BYTES / min(seconds) / 1e9
    return Roof(instruction_set(), clock_ghz(), bandwidth, threads or os.cpu_count() or 1)
