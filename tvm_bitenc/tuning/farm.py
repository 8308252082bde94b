"""Measure candidates on any number of devices behind TVM's RPC tracker.

Devices may come and go while candidates are measured: the tracker is asked again and again which
of them are free, and a candidate whose device died is measured by another.
"""

from __future__ import annotations

import re
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import rpc

from ..deploy.tracker import Summary, summary_of
from ..errors import BitencError, first_line
from .measure import Job, Times, WrongResult, measure
from .runner import Finished, Outcome

ATTEMPTS = 3  # Devices that a candidate may be lost on.
POLL_SECONDS = 0.1
CONNECT_SECONDS = 10.0
NO_DEVICE_SECONDS = 60.0  # Without any device, tuning ends.
EXPIRED = "RPCSessionTimeoutError"  # What a device says that stopped a candidate.
SCHEME = re.compile(r"rpc://([^:/]+):(\d+)/(.+)")


class FarmError(BitencError):
    """A tracker that doesn't answer, or one without devices."""


@dataclass(frozen=True)
class Address:
    """Where devices are.

    Parameters
    ----------
    host : str
    port : int
    key : str
        What the devices are called at the tracker.
    """

    host: str
    port: int
    key: str

    def __str__(self) -> str:
        return f"rpc://{self.host}:{self.port}/{self.key}"


def parse_address(text: str) -> Address:
    """Read ``rpc://host:port/key``."""
    found = SCHEME.fullmatch(text)
    if found is None:
        raise FarmError(f"runner {text!r}", "isn't rpc://host:port/key", "Write it like that")
    return Address(found[1], int(found[2]), found[3])


class Farm:
    """Devices of one kind behind a tracker.

    Parameters
    ----------
    address : Address
    timeout : float
        Seconds that a candidate may take on a device.
    measure : callable
        From session and job to `Times`.

    Raises
    ------
    FarmError
        If the tracker doesn't answer.
    """

    is_remote = True

    def __init__(
        self,
        address: Address,
        timeout: float = 10.0,
        measure: Callable[[rpc.RPCSession, Job], Times] = measure,
    ):
        self.address, self.timeout, self._measure = address, timeout, measure
        self._tracker = self._connect()
        self._ended = threading.Event()

    def devices(self) -> int:
        """How many devices the tracker has."""
        servers = self._summary().server_info
        return sum(server.key.split(":", 1)[-1] == self.address.key for server in servers)

    def run(self, jobs: Sequence[Job], finished: Finished) -> list[Outcome]:
        """Measure jobs on all devices at once; each is reported when it is done.

        Raises
        ------
        FarmError
            If the tracker doesn't answer any more, or no device is left.
        """
        batch, deviceless = _Batch(jobs, finished), 0.0
        while not batch.is_done.wait(POLL_SECONDS):
            if self._ended.is_set():
                break
            devices = self.devices()
            for _ in range(min(devices - batch.threads, batch.waiting)):
                batch.join()
                threading.Thread(target=self._serve, args=(batch,), daemon=True).start()
            deviceless = 0.0 if devices else deviceless + POLL_SECONDS
            if deviceless > NO_DEVICE_SECONDS:
                raise FarmError(
                    f"tracker {self.address}", "has no devices", "Start tvm.exec.rpc_server"
                )
        return list(batch.outcomes)

    def stop(self) -> None:
        """Let `run` return soon; what isn't measured has failed."""
        self._ended.set()

    def close(self) -> None:
        """Leave the tracker."""
        self._tracker.close()

    def _serve(self, batch: _Batch) -> None:
        """Let a device measure jobs until there are none left, or it is lost."""
        try:
            tracker = self._connect()
            while (number := batch.take()) is not None:
                if not self._attempt(tracker, batch, number):
                    break
            tracker.close()
        except FarmError:
            pass  # `run` sees it as well.
        finally:
            batch.leave()

    def _attempt(self, tracker: rpc.TrackerSession, batch: _Batch, number: int) -> bool:
        """Measure a job; return whether the device may be asked again."""
        try:
            session = tracker.request(self.address.key, session_timeout=self.timeout, max_retry=1)
            outcome = self._measure(session, batch.jobs[number])
            del session  # The device waits for that.
        except WrongResult as error:
            batch.finish(number, error.cause)
        except Exception as error:
            if EXPIRED not in str(error):  # The device is lost, or the candidate took it down.
                batch.lose(number, first_line(error))
                return False
            batch.finish(number, f"ran for more than {self.timeout:g} s and was stopped")
        else:
            batch.finish(number, outcome)
        return True

    def _connect(self) -> rpc.TrackerSession:
        place = self.address.host, self.address.port
        try:  # TVM's own connection waits for a tracker without end.
            with socket.create_connection(place, CONNECT_SECONDS):
                pass
            return rpc.connect_tracker(*place)
        except (OSError, RuntimeError) as error:
            raise FarmError(
                f"tracker {self.address}",
                f"doesn't answer ({first_line(error)})",
                f"Start it: python -m tvm.exec.rpc_tracker --host 127.0.0.1 --port {place[1]}",
            ) from None

    def _summary(self) -> Summary:
        where = f"tracker {self.address}"
        try:
            return summary_of(self._tracker, where, FarmError)
        except (OSError, ValueError, RuntimeError):
            self._tracker = self._connect()
            return summary_of(self._tracker, where, FarmError)


class _Batch:
    """Jobs that devices take, and what became of them.

    Attributes
    ----------
    threads : int
        How many threads serve it: one for each device.
    """

    def __init__(self, jobs: Sequence[Job], finished: Finished):
        self.jobs, self._finished = jobs, finished
        self.outcomes: list[Outcome] = ["not measured"] * len(jobs)
        self.is_done, self.threads = threading.Event(), 0
        self._waiting, self._lost = deque(range(len(jobs))), [0] * len(jobs)
        self._left, self._lock = len(jobs), threading.RLock()
        if not jobs:
            self.is_done.set()

    @property
    def waiting(self) -> int:
        """Jobs that no device has."""
        return len(self._waiting)

    def take(self) -> int | None:
        """Give a device a job, None if there is none."""
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def finish(self, number: int, outcome: Outcome) -> None:
        """Take a result."""
        with self._lock:
            self.outcomes[number] = outcome
            self._finished(number, outcome)
            self._left -= 1
            if self._left == 0:
                self.is_done.set()

    def lose(self, number: int, reason: str) -> None:
        """Give a job to another device, unless it was lost on several."""
        with self._lock:
            self._lost[number] += 1
            if self._lost[number] < ATTEMPTS:
                self._waiting.append(number)
            else:
                self.finish(number, f"lost {ATTEMPTS} devices: {reason}")

    def join(self) -> None:
        """Count a thread more."""
        with self._lock:
            self.threads += 1

    def leave(self) -> None:
        """Count a thread less."""
        with self._lock:
            self.threads -= 1
