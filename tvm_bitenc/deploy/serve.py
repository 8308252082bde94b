"""``bitenc serve``: TVM's RPC server, with a clock around kernels."""

from __future__ import annotations

import json
import time
from collections import defaultdict

import tvm

from ..threads import prepare_pool

LOOPBACK, PORT = "127.0.0.1", 9090
CLOCK, TIMES = "tvm_bitenc.clock_kernels", "tvm_bitenc.kernel_times"


def start_server(
    host: str = LOOPBACK,
    port: int = PORT,
    key: str = "",
    tracker: tuple[str, int] | None = None,
):
    """Start TVM's RPC server in a process of its own and return it; its port is ``.port``.

    Whoever reaches the server can run code on this machine: TVM's RPC has no passwords.

    Parameters
    ----------
    host : str
        The address to listen at; by default only this machine itself reaches it.
    port : int
        If it is taken, the next free one.
    key : str
        What kind of device this is, for a tracker.
    tracker : (str, int), optional
        The tracker to register with.
    """
    from tvm import rpc

    return rpc.Server(
        host,
        port,
        key=key,
        tracker_addr=tracker,
        silent=True,
        no_fork=False,
        server_init_callback=_register_clock,
    )


def _register_clock() -> None:
    """Make kernels' times known to clients; runs in the server's process."""
    prepare_pool()
    total: dict[str, float] = defaultdict(float)
    started = 0.0

    def clock(_function, name: str, before: bool, _result, *_arguments) -> int:
        nonlocal started
        if before:
            started = time.perf_counter()
        elif not name.startswith("vm.builtin"):
            total[name] += time.perf_counter() - started
        return 0

    def times() -> str:
        result = json.dumps({name: s for name, s in total.items() if name != "main"})
        total.clear()
        return result

    def clock_kernels(machine: tvm.runtime.Module) -> None:
        machine["set_instrument"](clock)  # A client can't pass functions.

    tvm.register_global_func(CLOCK, clock_kernels, override=True)
    tvm.register_global_func(TIMES, times, override=True)
