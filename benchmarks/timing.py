"""Time several callables fairly: in turns, and the fastest of many repeats counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

TURN_SECONDS = 2e-3  # A turn is as many runs as fit: long beside the clock's own cost.
WARM_UP_RUNS = 3
MIN_ROUNDS = 3
# A pool of threads spins for a while when its work is done, and would take a core from the next.
SECONDS_OF_SPINNING = 20e-3


def fastest(
    contenders: Mapping[str, Callable[[], object]], budget: float = 1.0, threads: int = 1
) -> dict[str, float]:
    """Return seconds per run of each callable.

    Whatever else the machine does hits all of them alike, as they run in turns.

    Parameters
    ----------
    contenders : mapping of str to callable
        Each does one run; inputs and outputs should be in place.
    budget : float
        Seconds to spend on all together. Each gets three turns at least.
    threads : int
        That the contenders have; with several, each turn waits until those of the last one sleep.
    """
    runs = {name: _runs_per_turn(run) for name, run in contenders.items()}
    best = dict.fromkeys(contenders, float("inf"))
    end, rounds = time.perf_counter() + budget, 0
    while rounds < MIN_ROUNDS or time.perf_counter() < end:
        for name, run in contenders.items():
            if threads > 1:
                time.sleep(SECONDS_OF_SPINNING)
            run()  # Brings its data back into the caches.
            best[name] = min(best[name], _turn(run, runs[name]))
        rounds += 1
    return best


def _runs_per_turn(run: Callable[[], object]) -> int:
    seconds = min(_turn(run, 1) for _ in range(WARM_UP_RUNS))
    return max(1, int(TURN_SECONDS / seconds))


def _turn(run: Callable[[], object], runs: int) -> float:
    """Seconds per run, the mean of one turn."""
    start = time.perf_counter()
    for _ in range(runs):
        run()
    return (time.perf_counter() - start) / runs
