"""A device's entry at a tracker: free or taken, and the key for its next client."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tvm.rpc import base
from tvm.rpc.base import TrackerCode

from ..decode import Limits, Source
from ..errors import RemoteError

_ANSWER_SECONDS = 10.0
_RETRY_SECONDS = 2.0
_PING_SECONDS = 2.0
_UNUSED_SECONDS = 6.0  # After which a key that a client took, and did not use, is replaced.
_LIMITS = Limits(size=1 << 20)


class Registration:
    """Offers a device to a tracker whenever it is free.

    Parameters
    ----------
    tracker : (host, port)
    key : str
        What kind of device it is.
    address : (host or None, port)
        Where clients find it; None is where the tracker sees it.
    is_free : callable
        Whether a client may come.
    """

    def __init__(
        self,
        tracker: tuple[str, int],
        key: str,
        address: tuple[str | None, int],
        is_free: Callable[[], bool],
    ):
        self._tracker, self._key, self._address, self._is_free = tracker, key, address, is_free
        self._used = asyncio.Event()
        self.expected: str | None = None

    def take(self, key: str) -> bool:
        """Whether a client's key is the one that the tracker gave it; it is good once."""
        if key != self.expected:
            return False
        self.expected = None
        self._used.set()
        return True

    async def run(self) -> None:
        """Register, again and again wherever the tracker is lost."""
        while True:
            writer = None
            try:
                reader, writer = await asyncio.wait_for(
                    asyncio.open_connection(*self._tracker), _ANSWER_SECONDS
                )
                await self._offer(_Link(reader, writer))
            except (OSError, EOFError, RemoteError, asyncio.TimeoutError):
                self.expected = None
                await asyncio.sleep(_RETRY_SECONDS)
            finally:
                if writer is not None:
                    writer.close()

    async def _offer(self, link: _Link) -> None:
        await link.greet()
        host, port = self._address
        info = {"key": f"server:{self._key}", "addr": (host, port)}
        await link.ask([TrackerCode.UPDATE_INFO, info])
        while True:
            while not self._is_free():
                await asyncio.sleep(0.1)
            await self._one_client(link)

    async def _one_client(self, link: _Link) -> None:
        """Offer a key until a client has come with it."""
        host, port = self._address
        self._used.clear()
        unused = _UNUSED_SECONDS
        while not self._used.is_set():
            if unused >= _UNUSED_SECONDS:
                self.expected, unused = base.random_key(self._key), 0.0
                await link.ask([TrackerCode.PUT, self._key, (port, self.expected), host])
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._used.wait(), _PING_SECONDS)
                return
            pending = await link.ask([TrackerCode.GET_PENDING_MATCHKEYS], list[str])
            unused = 0.0 if self.expected in pending else unused + _PING_SECONDS


class _Link:
    """TVM's protocol with a tracker: JSON after its length."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._reader, self._writer = reader, writer
        self._source = Source("tracker", "Start it again", RemoteError, _LIMITS)

    async def greet(self) -> None:
        """Say that this is a tracker's client, and hear that it is a tracker."""
        self._writer.write(struct.pack("<i", base.RPC_TRACKER_MAGIC))
        (magic,) = struct.unpack("<i", await self._read(4))
        if magic != base.RPC_TRACKER_MAGIC:
            raise self._source.fault("isn't a tracker")

    async def ask(self, message: list, kind: Any = int) -> Any:
        """Send a message and return the answer."""
        content = json.dumps(message).encode()
        self._writer.write(struct.pack("<i", len(content)) + content)
        await asyncio.wait_for(self._writer.drain(), _ANSWER_SECONDS)
        (size,) = struct.unpack("<i", await self._read(4))
        if not 0 <= size <= _LIMITS.size:
            raise self._source.fault("sends too much")
        answer = self._source.json(await self._read(size), kind)
        if kind is int and answer != TrackerCode.SUCCESS:
            raise self._source.fault(f"answers {answer}")
        return answer

    async def _read(self, count: int) -> bytes:
        return await asyncio.wait_for(self._reader.readexactly(count), _ANSWER_SECONDS)
