"""Run a function over many cases, each in a process of its own that can crash or hang alone.

Whoever calls `run` has imported what the function needs, has built a module once, and has started
no threads: a child is a fork, so it imports nothing again, nor does what TVM does for the first
build of a process alone; and it would inherit the locks of threads that it doesn't have.
"""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from tvm_bitenc.errors import BitencError

KINDS = ("pass", "refused", "wrong", "raw", "hang")


class Wrong(AssertionError):
    """What a case raises for a number, shape or dtype that isn't the oracle's."""


@dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes
    ----------
    kind : {"pass", "refused", "wrong", "raw", "hang"}
        ``refused``: a `BitencError`; ``raw``: any other exception, or a signal.
    detail : object
        What the function returned, for a pass; else a message.
    """

    kind: str
    detail: Any


def run(
    function: Callable[[Any], Any],
    cases: Sequence[Any],
    limit: float = 60.0,
    workers: int | None = None,
    observe: Callable[[int, Outcome], None] | None = None,
) -> list[Outcome]:
    """Run ``function(case)`` for each case.

    Parameters
    ----------
    function : callable
        Raises `Wrong` for a wrong result. What it returns must be picklable.
    cases : sequence
        They needn't be picklable: children are forks.
    limit : float
        Seconds after which a case is killed and counts as a hang.
    workers : int, optional
        Processes at a time; by default one for each CPU.
    observe : callable, optional
        Called with the index of a case and its outcome as soon as it has ended.

    Returns
    -------
    list of Outcome
        In the order of the cases.
    """
    workers = workers or len(os.sched_getaffinity(0))
    gc.freeze()  # A collection in a child would copy the pages of all that was imported.
    outcomes: dict[int, Outcome] = {}
    waiting = iter(range(len(cases)))
    running: dict[Connection, _Child] = {}
    while True:
        for index in _take(waiting, workers - len(running)):
            child = _Child(index, function, cases[index], limit)
            running[child.results] = child
        if not running:
            return [outcomes[index] for index in range(len(cases))]
        remaining = min(child.deadline for child in running.values()) - time.monotonic()
        done = set(wait(list(running), timeout=max(remaining, 0)))
        for results, child in list(running.items()):
            if results in done or child.deadline <= time.monotonic():
                outcomes[child.index] = child.outcome()
                del running[results]
                if observe is not None:
                    observe(child.index, outcomes[child.index])


def _take(indices: Iterator[int], count: int) -> list[int]:
    return [index for _, index in zip(range(count), indices)]


class _Child:
    """A process at work on one case."""

    def __init__(self, index: int, function: Callable, case: Any, limit: float):
        self.index, self.limit = index, limit
        self.deadline = time.monotonic() + limit
        context = get_context("fork")
        self.results, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(sender, function, case))
        self.process.start()
        sender.close()  # The child has its own; without this one, its end shows as an end of file.

    def outcome(self) -> Outcome:
        """What the child says, or what became of it."""
        try:
            if not self.results.poll():
                return Outcome("hang", f"took more than {self.limit:g} s")
            return self.results.recv()
        except EOFError:
            self.process.join()
            return Outcome("raw", _death(self.process.exitcode))
        finally:
            self.process.kill()
            self.process.join()
            self.results.close()


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"left with exit code {code}"


def _work(sender: Connection, function: Callable, case: Any) -> None:
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1), os.dup2(silence, 2)
    try:
        outcome = Outcome("pass", function(case))
    except BitencError as error:
        outcome = Outcome("refused", str(error))
    except Wrong as error:
        outcome = Outcome("wrong", str(error))
    except BaseException as error:  # Whatever else there is, is the finding.
        outcome = Outcome("raw", f"{type(error).__name__}: {error}")
    sender.send(outcome)
    os._exit(0)  # Without tidying up: that takes longer than many a case.
