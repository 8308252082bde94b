"""When work is shared between threads."""

from __future__ import annotations

from ..target import Target

TASKS_PER_THREAD = 2
MIN_PARALLEL_MACS = 1 << 22


def threads_for(macs: int, target: Target) -> int:
    """Threads to make work for; the pool may have fewer."""
    if target.threads == 1 or macs < MIN_PARALLEL_MACS:
        return 1
    return target.threads or 4
