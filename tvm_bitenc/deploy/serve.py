"""`Server`: TVM's RPC server that cleans up after itself, with a clock around kernels."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import tvm

from ..errors import RemoteError, first_line
from ..threads import prepare_pool
from .machine import describe_machine

LOOPBACK, PORT = "127.0.0.1", 9090
CLOCK, TIMES = "tvm_bitenc.clock_kernels", "tvm_bitenc.kernel_times"
MACHINE = "tvm_bitenc.machine"
_PR_SET_PDEATHSIG = 1  # prctl: the signal that a process gets when its parent dies.


class Server:
    """TVM's RPC server in processes of its own, which end with this object or this process.

    Whoever reaches the server can run code on this machine: TVM's RPC has no passwords. Use it as
    a context manager, or call `close`.

    Parameters
    ----------
    host : str
        The address to listen at; by default only this machine itself reaches it.
    port : int
        0 chooses a free one.
    key : str
        What kind of device this is, for a tracker.
    tracker : (str, int), optional
        The tracker to register with.
    public_host : str, optional
        The address that the tracker gives to clients, if it isn't the one that the tracker sees.

    Raises
    ------
    RemoteError
        If the port is taken, the address isn't this machine's, or a package is missing.
    """

    def __init__(
        self,
        host: str = LOOPBACK,
        port: int = PORT,
        key: str = "",
        tracker: tuple[str, int] | None = None,
        public_host: str | None = None,
    ):
        need_rpc()
        self.host, self.key, self.tracker = host, key, tracker
        self.public_host = public_host
        self.port = port or free_port(host)
        self.folder = Path(tempfile.mkdtemp(prefix="bitenc-serve-"))
        self._rpc = None
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        from tvm import rpc

        prepare = functools.partial(_prepare_process, str(self.folder), os.getpid())
        try:
            self._rpc = rpc.Server(
                self.host,
                self.port,
                self.port + 1,
                key=self.key,
                tracker_addr=self.tracker,
                custom_addr=self.public_host,
                silent=True,
                server_init_callback=prepare,
            )
        except Exception as error:  # TVM's own errors have no common class.
            raise RemoteError(
                f"RPC server {self.host}:{self.port}",
                f"can't be started ({str(error).strip().splitlines()[-1]})",
                "Use another --port, and an address of this machine as --host",
            ) from None

    def serve_forever(self) -> None:
        """Start again whenever a client's session takes the server down with it."""
        while True:
            self._rpc.proc.join()
            self._rpc.terminate()
            self._empty_folder()
            self._start()

    def close(self) -> None:
        """End all processes of the server and remove all that clients uploaded."""
        if self._rpc is not None:
            self._rpc.terminate()
            self._rpc = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _empty_folder(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_error) -> None:
        self.close()


def need_rpc() -> None:
    """Raise `RemoteError` if packages that TVM's RPC imports are missing."""
    try:
        import cloudpickle  # noqa: F401
        import psutil  # noqa: F401
        import tornado  # noqa: F401
    except ImportError as error:
        raise RemoteError(
            "RPC", f"{error.name} isn't installed", "pip install 'tvm-bitenc[deploy]'"
        ) from None


def free_port(host: str = LOOPBACK) -> int:
    """Return a port that is free now; TVM's server can't choose one itself."""
    try:
        with socket.socket() as probe:
            probe.bind((host, 0))
            return probe.getsockname()[1]
    except OSError as error:
        raise RemoteError(
            f"address {host}", f"can't be listened at ({first_line(error)})", "Give another --host"
        ) from None


def _prepare_process(folder: str, parent: int) -> None:
    """Set up the server's process, of which each session is a fork."""
    import multiprocessing

    multiprocessing.set_start_method("fork", force=True)  # Else sessions lack our functions.
    tempfile.tempdir = folder
    os.chdir(folder)
    prepare_pool()
    os.register_at_fork(after_in_child=_die_with_parent)
    threading.excepthook = _end_process
    threading.Thread(target=_end_with, args=(parent, folder), daemon=True).start()
    _register_functions()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_process(_arguments) -> None:
    """End the server when its listening thread has failed: else it would be there, but deaf."""
    os._exit(1)


def _end_with(parent: int, folder: str) -> None:
    """Clean up in the parent's stead when it was killed."""
    import psutil

    while os.getppid() == parent:
        time.sleep(0.5)
    for child in psutil.Process().children(recursive=True):
        child.kill()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _register_functions() -> None:
    """Make kernels' times and facts about the machine known to clients."""
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
    tvm.register_global_func(MACHINE, lambda: json.dumps(describe_machine()), override=True)
