"""The roofs of this machine: multiply-accumulates per second, and bytes from the cache."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np

from ..limits import limits
from ..rates import clock_ghz
from ..target import Target, native_target

COPIED_BYTES = 1 << 17  # Weights and planes of a layer lie in the core's cache, so this does.
COPIES = 2000


@dataclass(frozen=True)
class Roof:
    """What a machine can do at best.

    Parameters
    ----------
    target : Target
        What code was compiled for.
    clock_ghz : float
        Measured.
    bandwidth : float
        Gigabytes per second that a copy of data in the cache reads and writes.
    threads : int
    """

    target: Target
    clock_ghz: float
    bandwidth: float
    threads: int

    def gmacs(self, strategy: str, weight_bits: int, act_bits: int) -> float | None:
        """Return 10^9 multiply-accumulates per second that a strategy reaches at best, if known."""
        known = limits(self.target, weight_bits, act_bits, self.clock_ghz, self.threads)
        return known.get(strategy)

    @property
    def text(self) -> str:
        """What it is of, in a line."""
        core = f"rates {self.target.core.source}" if self.target.core.source else "rates unknown"
        return f"{self.target.cpu}, {self.clock_ghz:.2f} GHz, {self.threads} threads; {core}"


def measure_roof(threads: int | None = None, target: Target | None = None) -> Roof:
    """Measure this machine, about a second's work.

    Parameters
    ----------
    threads : int, optional
        That the model uses; default all cores.
    target : Target, optional
        That it was compiled for; default this machine's CPU.
    """
    source = np.ones(COPIED_BYTES // 8)
    copy = np.empty_like(source)
    seconds = []
    for _ in range(COPIES):
        start = time.perf_counter()
        np.copyto(copy, source)
        seconds.append(time.perf_counter() - start)
    bandwidth = 2 * COPIED_BYTES / min(seconds) / 1e9
    target = native_target() if target is None else target
    return Roof(target, clock_ghz(), bandwidth, threads or os.cpu_count() or 1)
