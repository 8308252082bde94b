"""TVM's thread pools: each thread that runs models has one, as large as the machine."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import tvm

_ALL_CORES = 1  # TVM's name for a pool that takes any core.
_NO_LIMIT = 0
_LOOKS = 4000  # About 1 ms: longer than it is from one parallel loop of a network to the next.
_calling = threading.local()  # What the pool of the calling thread was last set to.


def prepare_pool() -> None:
    """Let pools have every physical core, pin nothing, and rest when there is nothing to do.

    TVM takes half of the logical CPUs, which leaves cores idle where a core has one thread. It
    pins the calling thread, so that threads which other libraries start later all share one core.
    And behind each loop its workers look for the next one for some 100 ms: many callers' workers
    take the cores from those that compute, and a thread that ends waits for its own.
    These settings are read when a pool is first used; those of the user's environment win.
    """
    if "TVM_NUM_THREADS" not in os.environ:
        os.environ["TVM_NUM_THREADS"] = str(physical_cores())
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", str(_LOOKS))


def use_threads(count: int | None) -> None:
    """Let parallel loops that the calling thread starts use `count` threads; None for every core.

    The pool, and so its size, belongs to the calling thread: models ask before each run.
    """
    if getattr(_calling, "count", None) == count:
        return
    prepare_pool()
    tvm.get_global_func("runtime.config_threadpool")(_ALL_CORES, count or _NO_LIMIT)
    _calling.count = count


def physical_cores(cpus: Path = Path("/sys/devices/system/cpu")) -> int:
    """Cores of this machine, not counting the further threads of each."""
    siblings = {path.read_text() for path in cpus.glob("cpu[0-9]*/topology/thread_siblings_list")}
    return len(siblings) or os.cpu_count() or 1
