"""A client's session on a server: a process of its own, watched by the one that listens."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import select
import shutil
import signal
import socket
import struct
import sys
import time
from collections import deque
from contextlib import suppress

from tvm.error import InternalError
from tvm.rpc import _ffi_api
from tvm.rpc.server import _serve_loop
from tvm.support.utils import TempDirectory, tempdir

_LOG = logging.getLogger("RPCServer")
_PR_SET_PDEATHSIG = 1  # prctl: the signal that a process gets when its parent dies.
_GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR
_FRESH = 0.25  # Seconds in which a session may begin its work.
_WINDOW = 1.0  # Seconds without any use of the CPU after which a session is idle.
_SENDING = struct.pack("ll", 0, 200_000)  # Seconds and microseconds that a last word may take.


class Session:
    """A process that serves one client, forked from this one.

    Parameters
    ----------
    connection : socket
        After the handshake; belongs to the session from now on.
    seconds : float or None
        How long it may last, as the client says.
    others : list of socket
        Of this process, which the new one must not hold open.
    """

    def __init__(
        self, connection: socket.socket, seconds: float | None, others: list[socket.socket]
    ):
        self.connection, self._seconds = connection, seconds
        self._folder = tempdir()
        self._began = time.monotonic()
        self._samples: deque[tuple[float, float]] = deque()
        connection.setblocking(True)
        _keep_alive(connection)
        context = multiprocessing.get_context("fork")  # Else it would lack our functions.
        self.process = context.Process(target=_serve, args=(connection, self._folder, others))
        self.process.start()
        assert self.process.pid is not None  # It has started.
        self._pid: int = self.process.pid

    @property
    def is_over(self) -> bool:
        """Whether its process has ended, or its client is gone."""
        return not self.process.is_alive() or has_hung_up(self.connection)

    @property
    def has_expired(self) -> bool:
        """Whether it had its time."""
        return self._seconds is not None and time.monotonic() - self._began > self._seconds

    def is_working(self) -> bool:
        """Whether it has just begun, or has used the CPU within the last second."""
        now = time.monotonic()
        self._samples.append((now, _cpu_seconds(self._pid)))
        while now - self._samples[0][0] > _WINDOW:
            self._samples.popleft()
        return now - self._began < _FRESH or self._samples[-1][1] > self._samples[0][1]

    def end(self, reason: str = "") -> None:
        """End it, if it runs still, and remove what was uploaded."""
        if self.process.is_alive():
            _kill(self._pid)
            if reason:
                self._say(reason)
        self.process.join()
        self.connection.close()
        shutil.rmtree(self._folder.temp_dir, ignore_errors=True)

    def _say(self, reason: str) -> None:
        """Tell the client why its session was ended, if it listens."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SENDING)
        with suppress(Exception):  # TVM's own errors have no common class.
            _ffi_api.ReturnException(self.connection.fileno(), reason)


def has_hung_up(connection: socket.socket) -> bool:
    """Whether the other side has closed a connection, or is gone; what it sent may be there yet."""
    poll = select.poll()
    poll.register(connection, _GONE)
    return bool(poll.poll(0))


def _serve(connection: socket.socket, folder: TempDirectory, others: list[socket.socket]) -> None:
    """Answer calls until the client closes the connection."""
    _die_with_parent()
    for other in others:
        other.close()
    os.chdir(folder.temp_dir)
    _LOG.setLevel(logging.ERROR)
    with suppress(InternalError):  # The client has reset the connection.
        _serve_loop(connection, None, folder)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _keep_alive(connection: socket.socket) -> None:
    """Notice within some ten seconds that a machine without power has gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, value in ("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _cpu_seconds(pid: int) -> float:
    import psutil

    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system + times.children_user + times.children_system


def _kill(pid: int) -> None:
    """Kill a process and all that it started."""
    import psutil

    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in [*process.children(recursive=True), process]:
            with suppress(psutil.Error):
                each.kill()
