"""Measure candidates on this machine, in a process of its own that may be killed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from tvm import rpc
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms
from tvm.support.popen_pool import PopenPoolExecutor

from ..errors import BitencError
from ..threads import prepare_pool, use_threads
from .measure import Job, Times, WrongResult, measure

Outcome = Times | str  # Times, or why there are none.
Finished = Callable[[int, Outcome], None]


class Device(Protocol):
    """What measures: `LocalDevice` or `farm.Farm`.

    Attributes
    ----------
    is_remote : bool
        Whether this machine may build candidates meanwhile: where it measures it must not.
    """

    is_remote: bool

    def run(self, jobs: Sequence[Job], finished: Finished) -> list[Outcome]:
        """Measure jobs; call ``finished(number, outcome)`` when one is done."""

    def devices(self) -> int:
        """How many jobs it measures at once."""

    def stop(self) -> None:
        """Let `run` return soon."""

    def close(self) -> None:
        """Let go of everything."""


class Slot:
    """Where an outcome will be."""

    def __init__(self):
        self.outcome: Outcome = "not measured"
        self.is_there = threading.Event()

    def put(self, outcome: Outcome) -> None:
        """Take the outcome."""
        self.outcome = outcome
        self.is_there.set()


@derived_object
class Future(ms.runner.PyRunnerFuture):
    """MetaSchedule's interface to a `Slot`.

    Parameters
    ----------
    slot : Slot
    """

    def __init__(self, slot: Slot):
        super().__init__()
        self.slot = slot

    def done(self) -> bool:
        """Whether there is an outcome."""
        return self.slot.is_there.is_set()

    def result(self) -> ms.runner.RunnerResult:
        """Wait for the outcome; return seconds or the error."""
        self.slot.is_there.wait()
        if isinstance(self.slot.outcome, Times):
            return ms.runner.RunnerResult([self.slot.outcome.seconds], None)
        return ms.runner.RunnerResult(None, self.slot.outcome)


_session: list[rpc.RPCSession] = []


def _measure_here(job: Job, threads: int | None) -> Outcome:
    if not _session:
        prepare_pool()
        if threads is not None:
            use_threads(threads)
        _session.append(rpc.LocalSession())
    try:
        return measure(_session[0], job)
    except WrongResult as error:  # Other processes would see its traceback, not its class.
        return error.cause


def _prepare() -> None:
    """Keep the measuring process from writing TVM's log of loaded modules."""
    import logging

    logging.getLogger("RPCServer").setLevel(logging.WARNING)


class LocalDevice:
    """This machine, one candidate at a time.

    Parameters
    ----------
    timeout : float
        Seconds that a candidate may take.
    threads : int, optional
        Of the kernels.
    """

    is_remote = False

    def __init__(self, timeout: float = 10.0, threads: int | None = None):
        self.timeout, self.threads = timeout, threads
        self._pool = PopenPoolExecutor(1, timeout, _prepare)
        self._ended = threading.Event()

    def devices(self) -> int:
        """How many jobs it measures at once."""
        return 1

    def run(self, jobs: Sequence[Job], finished: Finished) -> list[Outcome]:
        """Measure jobs one after another; each is reported when it is done."""
        outcomes: list[Outcome] = ["not measured"] * len(jobs)
        for i, job in enumerate(jobs):
            if self._ended.is_set():
                break
            outcomes[i] = self._run(job)
            finished(i, outcomes[i])
        return outcomes

    def stop(self) -> None:
        """Let `run` return after the job at hand."""
        self._ended.set()

    def _run(self, job: Job) -> Outcome:
        try:
            return self._pool.submit(_measure_here, job, self.threads).result()
        except TimeoutError:
            return f"ran for more than {self.timeout:g} s and was stopped"
        except ChildProcessError:
            return "crashed"
        except Exception as error:  # Whatever TVM or the system say; the last line says what.
            return str(error).strip().splitlines()[-1]

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown(wait=False)


@derived_object
class Runner(ms.runner.PyRunner):
    """MetaSchedule's interface to a device or a farm.

    Parameters
    ----------
    device : Device
    job_of : callable
        From the folder of an artifact to a job.
    record : callable
        Called with folder and outcome when a candidate is done.
    fail : callable
        Called with the error that ends tuning.
    """

    def __init__(
        self,
        device: Device,
        job_of: Callable[[str], Job],
        record: Callable[[str, Outcome], None],
        fail: Callable[[BitencError], None],
    ):
        super().__init__()
        self.device, self.job_of, self.record, self.fail = device, job_of, record, fail

    def run(self, runner_inputs: Sequence[ms.runner.RunnerInput]) -> list:
        """Measure candidates; on other machines, while this one goes on."""
        folders = [str(item.artifact_path) for item in runner_inputs]
        slots = [Slot() for _ in folders]
        if self.device.is_remote:
            threading.Thread(target=self._measure, args=(folders, slots), daemon=True).start()
        else:
            self._measure(folders, slots)
        return [Future(slot) for slot in slots]

    def _measure(self, folders: Sequence[str], slots: Sequence[Slot]) -> None:
        def finished(number: int, outcome: Outcome) -> None:
            self.record(folders[number], outcome)
            slots[number].put(outcome)

        try:
            self.device.run([self.job_of(folder) for folder in folders], finished)
        except BitencError as error:
            self.fail(error)
        finally:
            for slot in slots:
                slot.is_there.set()
