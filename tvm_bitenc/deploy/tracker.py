"""What a tracker answers."""

from __future__ import annotations

import msgspec
from tvm.rpc import TrackerSession

from ..decode import Count, Name, Source
from ..errors import BitencError


class Queue(msgspec.Struct, frozen=True):
    """Devices of one key.

    Parameters
    ----------
    free : int
        That no client has.
    """

    free: Count = 0


class Device(msgspec.Struct, frozen=True):
    """One device; its key begins with ``server:``."""

    key: Name


class Summary(msgspec.Struct, frozen=True):
    """All devices of a tracker.

    Parameters
    ----------
    queue_info : dict of str to Queue
    server_info : list of Device
    """

    queue_info: dict[Name, Queue] = {}
    server_info: list[Device] = []


def summary_of(tracker: TrackerSession, where: str, error: type[BitencError]) -> Summary:
    """Ask a `tvm.rpc.TrackerSession` for its devices.

    Raises
    ------
    BitencError
        Of the class `error`, if the answer is none.
    """
    source = Source(where, "Start it: python -m tvm.exec.rpc_tracker", error)
    return source.convert(tracker.summary(), Summary)
