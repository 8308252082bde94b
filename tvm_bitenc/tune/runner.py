"""Measure candidates on this machine, in a process of its own that may be killed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from tvm import rpc
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms
from tvm.support.popen_pool import PopenPoolExecutor

from ..errors import BitencError, first_line
from ..threads import prepare_pool, use_threads
from .measure import Job, Times, measure

Outcome = Times | str  # Times, or why there are none.
Finished = Callable[[int, Outcome], None]


class Device(Protocol):
    """What measures: `LocalDevice` or `farm.Farm`."""

    def run(self, jobs: Sequence[Job], finished: Finished) -> list[Outcome]:
        """Measure jobs; call ``finished(number, outcome)`` when one is done."""

    def devices(self) -> int:
        """How many jobs it measures at once."""

    def stop(self) -> None:
        """Let `run` return soon."""

    def close(self) -> None:
        """Let go of everything."""


@derived_object
class Done(ms.runner.PyRunnerFuture):
    """A result that is there.

    Parameters
    ----------
    outcome : Times or str
    """

    def __init__(self, outcome: Outcome):
        super().__init__()
        self.outcome = outcome

    def done(self) -> bool:
        """Return True."""
        return True

    def result(self) -> ms.runner.RunnerResult:
        """Return seconds or the error."""
        if isinstance(self.outcome, Times):
            return ms.runner.RunnerResult([self.outcome.seconds], None)
        return ms.runner.RunnerResult(None, self.outcome)


_session: list[rpc.RPCSession] = []


def _measure_here(job: Job, threads: int | None) -> Times:
    if not _session:
        prepare_pool()
        if threads is not None:
            use_threads(threads)
        _session.append(rpc.LocalSession())
    return measure(_session[0], job)


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
        except BitencError as error:
            return error.cause or str(error)
        except Exception as error:  # Whatever TVM or the system say.
            return first_line(error)

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
    """

    def __init__(
        self,
        device: Device,
        job_of: Callable[[str], Job],
        record: Callable[[str, Outcome], None],
    ):
        super().__init__()
        self.device, self.job_of, self.record = device, job_of, record

    def run(self, runner_inputs) -> list:
        """Measure candidates."""
        folders = [str(item.artifact_path) for item in runner_inputs]
        jobs = [self.job_of(folder) for folder in folders]
        outcomes = self.device.run(jobs, lambda i, outcome: self.record(folders[i], outcome))
        return [Done(outcome) for outcome in outcomes]
