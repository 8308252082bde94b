"""When work is shared between threads."""

from __future__ import annotations

from ..target import Target

TASKS_PER_THREAD = 2
MIN_PARALLEL_MACS = 1 << 22
MAX_IDLE = 0.1  # Share of the time that threads wait for the last one.


def threads_for(macs: int, target: Target) -> int:
    """Threads to make work for; the pool may have fewer."""
    if target.threads == 1 or macs < MIN_PARALLEL_MACS:
        return 1
    return target.threads or 4


def idle(tasks: int, threads: int) -> float:
    """Share of their time that threads wait, of equal tasks: 1/8 for seven tasks of two."""
    rounds = -(-tasks // threads)
    return 1 - tasks / (threads * rounds)
