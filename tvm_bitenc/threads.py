"""TVM's thread pool: one per process, as large as the machine, set up before its first use."""

from __future__ import annotations

import os
from pathlib import Path

import tvm

_ALL_CORES = 1  # TVM's name for a pool that takes any core.


def prepare_pool() -> None:
    """Let the pool have every physical core, and pin nothing.

    TVM takes half of the logical CPUs, which leaves cores idle where a core has one thread. And it
    pins the calling thread, so that threads which other libraries start later all share one core.
    Both settings are read once, when the pool is first used; those of the user's environment win.
    """
    os.environ.setdefault("TVM_NUM_THREADS", str(physical_cores()))
    os.environ.setdefault("TVM_BIND_THREADS", "0")


def use_threads(count: int) -> None:
    """Limit the pool to `count` threads; the latest call decides."""
    prepare_pool()
    tvm.get_global_func("runtime.config_threadpool")(_ALL_CORES, count)


def physical_cores(cpus: Path = Path("/sys/devices/system/cpu")) -> int:
    """Cores of this machine, not counting the further threads of each."""
    siblings = {path.read_text() for path in cpus.glob("cpu[0-9]*/topology/thread_siblings_list")}
    return len(siblings) or os.cpu_count() or 1
