"""`Connection`: where an RPC server is, and clear errors when it can't be used."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from ..errors import BitencError, RemoteError, first_line
from .names import PROBE
from .serve import LOOPBACK, PORT, need_rpc
from .tracker import Queue, summary_of

Result = TypeVar("Result")

_MAGIC, _MISMATCH = 0xFF271, 0xFF271 + 2  # RPC_MAGIC and RPC_CODE_MISMATCH of TVM's protocol.
_PATIENCE = 10  # Seconds to wait for an answer of a server that has nothing to do.


@dataclass(frozen=True)
class Connection:
    """Where an RPC server is: at `host` and `port`, or known to a tracker there by `key`.

    Parameters
    ----------
    host : str
    port : int
    key : str
    is_tracker : bool
        Whether a tracker listens there, not a server.
    timeout : int
        Seconds after which a session ends, whatever it does.
    """

    host: str = LOOPBACK
    port: int = PORT
    key: str = ""
    is_tracker: bool = False
    timeout: int = 60

    def __str__(self) -> str:
        return f"RPC {'tracker' if self.is_tracker else 'server'} {self.host}:{self.port}"

    @contextmanager
    def session(self) -> Iterator:
        """Give a `tvm.rpc.RPCSession`, and close it: a server takes one client at a time.

        Raises
        ------
        RemoteError
            If nobody answers there, the server is busy, the key is another one, or it fails later.
        """
        session = self._open()
        try:
            with _remote_errors(self):
                yield session
        finally:
            with suppress(Exception):  # It may be gone.
                session.get_function("CloseRPCConnection")()

    def _open(self):
        need_rpc()
        cure = "Start `bitenc serve` on the device, and check host, port and key"
        with _remote_errors(self, "can't be reached", cure):
            return self._from_tracker() if self.is_tracker else self._from_server()

    def _from_server(self):
        from tvm import rpc

        self._probe()
        return rpc.connect(self.host, self.port, self.key, session_timeout=self.timeout)

    def _from_tracker(self):
        from tvm import rpc

        socket.create_connection((self.host, self.port), _PATIENCE).close()
        tracker = rpc.connect_tracker(self.host, self.port)
        queues = summary_of(tracker, str(self), RemoteError).queue_info
        if not queues.get(self.key, Queue()).free:  # TVM would wait for one without end.
            raise RemoteError(
                str(self),
                f"has no free device with key {self.key!r}",
                "Start `bitenc serve --tracker HOST:PORT --key KEY` on the device, or try later",
            )
        return tracker.request(self.key, session_timeout=self.timeout, max_retry=1)

    def _probe(self) -> None:
        """Ask with a key that no server has: an idle one refuses it at once.

        TVM's client would wait without end for a server that is busy or hangs.
        """
        with socket.create_connection((self.host, self.port), _PATIENCE) as probe:
            key = f"client:{PROBE}".encode()
            try:
                probe.sendall(struct.pack("<ii", _MAGIC, len(key)) + key)
                answer = probe.recv(4)
            except TimeoutError:
                raise RemoteError(
                    str(self),
                    f"doesn't answer within {_PATIENCE} seconds",
                    "It may be running another model: try later, or start it again",
                ) from None
        if answer != struct.pack("<i", _MISMATCH):
            raise RemoteError(
                str(self), "isn't an RPC server", "Start `bitenc serve` on the device"
            )


@contextmanager
def _remote_errors(
    connection: Connection,
    cause: str = "failed or stopped",
    cure: str = "See the server's output, and start it again if it has stopped",
) -> Iterator[None]:
    """Turn whatever TVM raises for a failed server into a `RemoteError`."""
    try:
        yield
    except BitencError:
        raise
    except Exception as error:  # TVM's own errors have no common class.
        raise RemoteError(str(connection), f"{cause} ({first_line(error)})", cure) from None


def within(seconds: float, connection: Connection, function: Callable[[], Result]) -> Result:
    """Return ``function()``, or raise `RemoteError`: a board without power never answers."""
    result: list = []

    def run() -> None:
        try:
            result.append((function(), None))
        except BaseException as error:
            result.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not result:
        raise RemoteError(
            str(connection),
            f"gave no answer in {seconds:g} seconds",
            "See whether the device still runs, or allow more time",
        )
    value, error = result[0]
    if error is not None:
        raise error
    return value
