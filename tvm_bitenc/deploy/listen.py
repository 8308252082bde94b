"""The process that listens for clients: handshakes with a deadline, then a process for each.

TVM's own server shakes hands with one client at a time, waits for it without end, and serves no
other meanwhile. Here a client that is silent, slow or sends rubbish costs nobody more than a
socket. One client works at a time, for others would disturb its times; but a session that doesn't
use the CPU keeps nobody waiting.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import struct
import sys
import tempfile
import time
from collections import defaultdict
from functools import partial
from pathlib import Path

import msgspec
import tvm
from tvm.rpc.base import RPC_CODE_MISMATCH, RPC_CODE_SUCCESS, RPC_MAGIC

from ..decode import Document
from ..threads import prepare_pool
from .inputs import random_inputs
from .machine import describe_machine
from .names import CLOCK, MACHINE, NETWORK_TIMES, PROBE, TIMES
from .network import load_network
from .registration import Registration
from .sealed import read_sealed
from .session import Session, has_hung_up

HANDSHAKE_SECONDS = 10.0  # Until a client has asked for something.
KEY_BYTES = 1024
HALF_OPEN = 64  # Handshakes at once; the oldest gives way.
WAITING = 64  # Clients that have asked and wait for their turn.
SESSIONS = 8  # At once; all but one of them idle.
LOOK_SECONDS = 0.1
_FIRST_BYTES = 8  # Of a client's first packet: its length.


class Settings(Document, frozen=True):
    """What a server gives to the process that listens for it.

    Parameters
    ----------
    folder : str
        For uploads.
    parent : int
        The server's process, without which this one ends.
    port : int
    key : str
    tracker : (str, int), optional
    public_host : str, optional
    """

    folder: str
    parent: int
    port: int
    key: str
    tracker: tuple[str, int] | None
    public_host: str | None


class Client(Document, frozen=True):
    """What a client says in its handshake.

    Parameters
    ----------
    key : str
    seconds : float, optional
        After which its session ends.
    """

    key: str
    seconds: float | None = None


class Listener:
    """Accepts clients.

    Parameters
    ----------
    listening : socket
    settings : Settings
    """

    def __init__(self, listening: socket.socket, settings: Settings):
        self._listening, self._settings = listening, settings
        self._half_open: dict[socket.socket, asyncio.Task] = {}
        self._waiting: set[socket.socket] = set()
        self._sessions: list[Session] = []
        self._door = asyncio.Lock()  # Clients wait here, first come, first served.
        self._is_free = True
        self._registration: Registration | None = None

    async def run(self) -> None:
        """Accept clients until the server's process is gone."""
        settings, loop = self._settings, asyncio.get_running_loop()
        self._listening.setblocking(False)
        tasks = [loop.create_task(self._watch())]
        if settings.tracker is not None:
            address = settings.public_host, settings.port
            self._registration = Registration(
                settings.tracker, settings.key, address, lambda: self._is_free
            )
            tasks.append(loop.create_task(self._registration.run()))
        tasks.append(loop.create_task(self._accept()))
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        done.pop().result()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listening)
            except OSError:  # Gone already, or too many files are open.
                await asyncio.sleep(LOOK_SECONDS)
                continue
            while len(self._half_open) >= HALF_OPEN:
                oldest = next(iter(self._half_open))
                self._half_open.pop(oldest).cancel()
            task = loop.create_task(self._welcome(connection))
            # One that gives way before it has begun never gets to its own `finally`.
            task.add_done_callback(partial(_close_if_cancelled, connection))
            self._half_open[connection] = task

    async def _welcome(self, connection: socket.socket) -> None:
        """Shake hands; a client with the right key gets a session when it is its turn."""
        is_served = False
        try:
            client = await asyncio.wait_for(self._greeted(connection), HANDSHAKE_SECONDS)
            self._half_open.pop(connection, None)
            if client is not None and len(self._waiting) < WAITING:
                self._waiting.add(connection)
                is_served = await self._take_turn(connection, client)
        except (OSError, asyncio.TimeoutError):
            pass  # It is slow, or it is gone.
        finally:
            self._half_open.pop(connection, None)
            self._waiting.discard(connection)
            if not is_served:
                connection.close()

    async def _greeted(self, connection: socket.socket) -> Client | None:
        """Shake hands and wait until the client asks for something; None if it can't be served."""
        loop, client = asyncio.get_running_loop(), await read_client(connection)
        if client is None or client.key == PROBE:
            return client
        if not self._is_right(client.key):
            await loop.sock_sendall(connection, struct.pack("<i", RPC_CODE_MISMATCH))
            return None
        name = f"server:{self._settings.key}".encode()
        await loop.sock_sendall(connection, struct.pack("<ii", RPC_CODE_SUCCESS, len(name)) + name)
        while _bytes_there(connection) < _FIRST_BYTES:
            await asyncio.sleep(LOOK_SECONDS / 10)
        return client

    async def _take_turn(self, connection: socket.socket, client: Client) -> bool:
        """Wait until no other client works; return whether a session has the connection now."""
        async with self._door:
            while not self._is_free and not has_hung_up(connection):
                await asyncio.sleep(LOOK_SECONDS)
            if has_hung_up(connection):
                return False
            if client.key == PROBE:
                connection.send(struct.pack("<i", RPC_CODE_MISMATCH))
                return False
            self._serve(connection, client)
            return True

    def _is_right(self, key: str) -> bool:
        if self._registration is not None:
            return self._registration.take(key)
        return key == self._settings.key

    def _serve(self, connection: socket.socket, client: Client) -> None:
        if len(self._sessions) >= SESSIONS:
            self._sessions.pop(0).end("RPCSessionTimeoutError: others wait, and it did nothing")
        self._waiting.discard(connection)
        others = [self._listening, *self._half_open, *self._waiting]
        others += [session.connection for session in self._sessions]
        self._sessions.append(Session(connection, client.seconds, others))
        self._is_free = False

    async def _watch(self) -> None:
        """End sessions that are over, and see whether one works."""
        while os.getppid() == self._settings.parent:
            for session in list(self._sessions):
                if session.is_over or session.has_expired:
                    self._sessions.remove(session)
                    session.end(
                        "RPCSessionTimeoutError: the session has expired, try to increase the"
                        ' "session_timeout" value.'
                    )
            self._is_free = not any([session.is_working() for session in self._sessions])
            await asyncio.sleep(LOOK_SECONDS)

    def close(self) -> None:
        """End all sessions."""
        for session in self._sessions:
            session.end()


async def read_client(connection: socket.socket) -> Client | None:
    """Read a client's half of the handshake; None if it isn't one of TVM's RPC."""
    magic, length = struct.unpack("<ii", await _receive(connection, 8))
    if magic != RPC_MAGIC or not 0 < length <= KEY_BYTES:
        return None
    try:
        name, *options = (await _receive(connection, length)).decode("utf-8").split()
        kind, _, key = name.partition(":")
        seconds = [float(o.removeprefix("-timeout=")) for o in options if o.startswith("-timeout=")]
    except ValueError:  # Not text, nothing at all, or no number.
        return None
    if kind != "client" or not all(0 < each < 1e9 for each in seconds):
        return None
    return Client(key, seconds[0] if seconds else None)


async def _receive(connection: socket.socket, count: int) -> bytes:
    loop, received = asyncio.get_running_loop(), b""
    while len(received) < count:
        part = await loop.sock_recv(connection, count - len(received))
        if not part:
            raise OSError("closed")
        received += part
    return received


def _bytes_there(connection: socket.socket) -> int:
    """How many bytes of the first packet's beginning have come; `OSError` if none will."""
    try:
        found = connection.recv(_FIRST_BYTES, socket.MSG_PEEK)
    except BlockingIOError:
        return 0
    if not found or has_hung_up(connection):
        raise OSError("closed")
    return len(found)


def _register_functions() -> None:
    """Make kernels' times and facts about the machine known to clients."""
    total: dict[str, float] = defaultdict(float)
    started = 0.0

    def clock(_function: object, name: str, before: bool, *_others: object) -> int:
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

    tvm.register_global_func(NETWORK_TIMES, _network_times, override=True)
    tvm.register_global_func(CLOCK, clock_kernels, override=True)
    tvm.register_global_func(TIMES, times, override=True)
    tvm.register_global_func(
        MACHINE, lambda: msgspec.json.encode(describe_machine()).decode(), override=True
    )


def _network_times(name: str, runs: int) -> str:
    """Seconds per run of each kernel of an uploaded library; empty if TVM alone runs it."""
    path, total = Path(name), defaultdict[str, float](float)
    description, content = read_sealed(path)
    network = load_network(path, description, content)
    if network is not None:
        for kernel, seconds in network.call_times(random_inputs(description.inputs), runs):
            total[kernel] += seconds
    return json.dumps(total)


def _close_if_cancelled(connection: socket.socket, task: asyncio.Task[None]) -> None:
    if task.cancelled():
        connection.close()


def main(settings: str, listening: str, ready: str) -> None:
    """Listen with a socket and settings of the process that has started this one."""
    given = msgspec.json.decode(settings, type=Settings)
    tempfile.tempdir = given.folder
    os.chdir(given.folder)
    prepare_pool()
    _register_functions()
    listener = Listener(socket.socket(fileno=int(listening)), given)
    os.write(int(ready), b"ready")
    os.close(int(ready))
    try:
        asyncio.run(listener.run())
    finally:
        listener.close()
        shutil.rmtree(given.folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
