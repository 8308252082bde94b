"""`Server`: a process that listens for clients of TVM's RPC, and cleans up after itself."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from ..errors import RemoteError, first_line

LOOPBACK, PORT = "127.0.0.1", 9090
_BACKLOG = 128


class Server:
    """An RPC server in processes of its own, which end with this object or this process.

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
        self._listening = _listen(host, port)
        self.port = self._listening.getsockname()[1]
        self.folder = Path(tempfile.mkdtemp(prefix="bitenc-serve-"))
        self.process: subprocess.Popen[bytes] | None = None
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        """Start the process that listens. The socket is ours: while it starts, clients wait."""
        from .listen import Settings

        settings = Settings(
            str(self.folder), os.getpid(), self.port, self.key, self.tracker, self.public_host
        )
        is_ready, ready = os.pipe()
        listening = self._listening.fileno()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tvm_bitenc.deploy.listen",
             msgspec.json.encode(settings).decode(), str(listening), str(ready)],
            stdin=subprocess.DEVNULL,
            pass_fds=(listening, ready),
            start_new_session=True,  # Ctrl-C is for this process, which ends that one.
        )  # fmt: skip
        os.close(ready)
        with os.fdopen(is_ready, "rb") as pipe:
            if not pipe.read():  # It has ended without a word.
                raise RemoteError(
                    f"RPC server {self.host}:{self.port}",
                    "can't be started",
                    "See above what its process says, and bitenc doctor",
                )

    def serve_forever(self) -> None:
        """Start again whenever the process that listens has ended."""
        while self.process is not None:
            self.process.wait()
            self._end_processes()
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(mode=0o700)
            self._start()

    def close(self) -> None:
        """End all processes of the server and remove all that clients uploaded."""
        self._listening.close()
        self._end_processes()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end_processes(self) -> None:
        import psutil

        if self.process is None:
            return
        try:
            running = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            running = []
        for each in running:
            try:
                each.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.kill()
        self.process.wait()
        self.process = None

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_error) -> None:
        self.close()


def _listen(host: str, port: int) -> socket.socket:
    where = f"RPC server {host}:{port}"
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        raise RemoteError(
            where,
            f"can't be started ({first_line(error)})",
            "Use another --port, and an address of this machine as --host",
        ) from None


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
