"""One run of tuning: MetaSchedule's task scheduler with the parts of this package in it."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule import _ffi_api
from tvm.s_tir.meta_schedule.logging import get_logging_func

from ..errors import BitencError
from ..limits import limits
from ..rates import clock_ghz
from ..records.file import Journal, Line, Record, Trial
from ..records.metaschedule import check_database
from .artifact import Artifact
from .builder import Builder, BuilderPool, Workshop
from .carrier import workload_module
from .compare import beats_default, comparison, record_of
from .measure import Times
from .model import CostModel, SpeedModel
from .progress import Best, Progress
from .result import LayerResult
from .runner import Device, LocalDevice, Outcome, Runner
from .search import Search, SearchStrategy
from .task import DEFAULT, Candidate, Task

BATCH = 16
MANY_DEVICES = 8
FINALISTS = 3  # Candidates that are compared with the default at the end.
FEWEST_BEFORE_LIMIT = 16  # Trials before a layer may be left alone.


class Context(ms.TuneContext):
    """A task as MetaSchedule sees it.

    Its own constructor imports every tensor intrinsic of every GPU, which takes half a minute.
    """

    def __init__(self, task: Task, strategy: SearchStrategy):
        space = ms.space_generator.ScheduleFn(lambda schedule: None, [], [], {})
        target = task.target.tvm_target
        self.__init_handle_by_constructor__(
            _ffi_api.TuneContext,
            workload_module(task),
            target,
            space,
            strategy,
            task.workload,
            1,
            1,
            get_logging_func(logging.getLogger(__name__)),  # Without one it prints everything.
        )
        _ffi_api.TuneContextInitialize(self)


class Session:
    """Tunes tasks.

    Parameters
    ----------
    tasks : sequence of Task
    journal : Journal
    device : Device
    progress : Progress
    trials : int
        Per task.
    near_limit : float
    builders : int or None
    seed : int
    folder : Path or None
        Where MetaSchedule keeps a database of its own.
    pool : BuilderPool, optional
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        journal: Journal,
        device: Device,
        progress: Progress,
        trials: int,
        near_limit: float,
        builders: int | None,
        seed: int,
        folder: Path | None = None,
        pool: BuilderPool | None = None,
    ):
        self.tasks = {task.workload: task for task in tasks}
        self.journal, self.device, self.progress = journal, device, progress
        self.trials, self.near_limit, self.seed = trials, near_limit, seed
        self.builders, self.folder, self._pool = builders, folder, pool
        self.model = SpeedModel()
        self.best = {workload: Best() for workload in self.tasks}
        self.is_stopped = False
        self._failure: BitencError | None = None
        self._lock = threading.Lock()
        self._earlier = {w: self._trials_of(t) for w, t in self.tasks.items()}
        for workload, trials_before in self._earlier.items():
            for trial in trials_before:
                self.best[workload].add(trial)

    def learn(self, lines: Iterable[Line]) -> None:
        """Teach the cost model what others measured, and what this journal has."""
        self.model.add(lines)
        self.model.add(trial for trials in self._earlier.values() for trial in trials)
        self.model.train()

    def stop(self) -> None:
        """End soon: what is measured by then counts."""
        self.is_stopped = True
        self.device.stop()
        self.progress.say("stopping; what was measured is kept")

    def run(self) -> list[LayerResult]:
        """Tune, then compare the best candidates with the defaults."""
        if not self.tasks:
            return []
        self._find_limits()
        self.progress.start(sum(map(self._left, self.tasks)))
        self.workshop = Workshop(self._pool or BuilderPool(self.builders))
        try:
            self._search()
            if self._failure is not None:
                raise self._failure
            if not self.is_stopped:
                self._compare()
        finally:
            self.progress.stop()
            self.workshop.pool.close()
            self.device.close()
            self.journal.close()
        return [self._result(task) for task in self.tasks.values()]

    def _search(self) -> None:
        left = [task for task in self.tasks.values() if self._left(task.workload)]
        contexts = [Context(task, self._strategy(task)) for task in left]
        if not contexts:
            return
        database = None
        callbacks = [ms.measure_callback.UpdateCostModel()]
        if self.folder is not None:
            check_database(self.folder)
            database = ms.database.JSONDatabase(work_dir=str(self.folder))
            callbacks.insert(0, ms.measure_callback.AddToDatabase())
        ms.task_scheduler.GradientBased(seed=self.seed + 1).tune(
            contexts,
            [float(task.count) for task in left],
            self.trials * len(contexts),
            self.trials,
            max(BATCH, self.device.devices()),
            Builder(self.workshop, self.tasks, self._record),
            Runner(self.device, self.workshop.job_of, self._measured, self._fail),
            callbacks,
            database,
            CostModel(self.model, self.tasks),
        )

    def _strategy(self, task: Task) -> SearchStrategy:
        tried = {trial.candidate for trial in self._earlier[task.workload]}
        few = self.device.devices() <= MANY_DEVICES
        search = Search(task, self.model, tried, self.seed, compares_code=few)
        return SearchStrategy(search, lambda: self._left(task.workload))

    def _left(self, workload: str) -> int:
        """Trials that a task may still have."""
        best = self.best[workload]
        is_near = best.share_of_limit(self.tasks[workload]) >= self.near_limit
        if self.is_stopped or (is_near and best.trials >= FEWEST_BEFORE_LIMIT):
            return 0
        return max(self.trials - best.trials, 0)

    def _measured(self, folder: str, outcome: Outcome) -> None:
        self._record(*self.workshop.built[folder], outcome)
        self.workshop.discard(folder)

    def _record(self, task: Task, candidate: Candidate, outcome: Outcome) -> None:
        """Write a trial down: called when it is done, by any thread."""
        trial = trial_of(task, candidate, outcome)
        with self._lock:
            self.journal.append(trial)
            self.best[task.workload].add(trial)
            self.model.add([trial])
            self.progress.trial(task, self.best[task.workload], self.trials)

    def _fail(self, error: BitencError) -> None:
        """End tuning by an error: MetaSchedule's C++ code would lose its class."""
        self._failure = error
        self.is_stopped = True

    def _compare(self) -> None:
        """Let the best candidates of every task meet the default once more."""
        for task in self.tasks.values():
            if not self.is_stopped and not self._has_record(task):
                record = max(self._winners(task), key=lambda r: r.speedup, default=None)
                if record is not None:
                    self.journal.append(record)

    def _winners(self, task: Task) -> list[Record]:
        """Records of the finalists that beat the default."""
        finalists, found = self._finalists(task), []
        built = self.workshop.build([(task, candidate) for candidate in finalists])
        for candidate, artifact in zip(finalists, built):
            if not isinstance(artifact, Artifact):
                continue
            job = comparison(self.workshop.job_of(artifact.folder))
            (outcome,) = self.device.run([job], lambda number, outcome: None)
            if isinstance(outcome, Times) and beats_default(outcome):
                found.append(record_of(task, candidate, outcome))
        return found

    def _finalists(self, task: Task) -> list[Candidate]:
        """Candidates that were fastest; the default, measured beside itself, is none."""
        trials = [trial for trial in self._trials_of(task) if trial.candidate != DEFAULT]
        ranked = sorted(trials, key=lambda trial: -trial.speedup)
        return [trial.candidate for trial in ranked if trial.speedup > 1][:FINALISTS]

    def _has_record(self, task: Task) -> bool:
        """Whether no trial came after the task's last comparison."""
        mine = [line for line in self.journal.lines if self._is_of(line, task)]
        return bool(mine) and isinstance(mine[-1], Record)

    def _is_of(self, line: Line, task: Task) -> bool:
        keys = task.keys
        return all(getattr(line, name) == value for name, value in keys.items())

    def _trials_of(self, task: Task) -> list[Trial]:
        return [x for x in self.journal.lines if isinstance(x, Trial) and self._is_of(x, task)]

    def _records_of(self, task: Task) -> list[Record]:
        return [x for x in self.journal.lines if isinstance(x, Record) and self._is_of(x, task)]

    def _find_limits(self) -> None:
        """Ask what this machine's instructions allow; of others nothing is known here."""
        if not isinstance(self.device, LocalDevice):
            return
        clock = clock_ghz()
        for workload, task in self.tasks.items():
            bits = task.layer.weight_bits, task.layer.act_bits
            allowed = limits(task.target, *bits, clock)
            geometry = task.layer.geometry
            is_known = geometry.groups == 1 and geometry.is_product  # All pairs of planes.
            if is_known and task.target.threads == 1 and allowed:
                self.best[workload].limit = max(allowed.values())

    def _result(self, task: Task) -> LayerResult:
        best, records = self.best[task.workload], self._records_of(task)
        record = max(records, key=lambda r: r.speedup, default=None)
        return LayerResult(
            task.name,
            task.workload,
            task.count,
            best.trials,
            record.speedup if record else 1.0,
            record.strategy if record else task.default_strategy,
            best.gmacs(task) if math.isfinite(best.seconds) else 0.0,
            best.share_of_limit(task),
        )


def trial_of(task: Task, candidate: Candidate, outcome: Outcome) -> Trial:
    """Return the line of an outcome."""
    strategy, tile = candidate
    if isinstance(outcome, Times):
        seconds, default_seconds, error = outcome.seconds, outcome.default_seconds, ""
    else:
        seconds, default_seconds, error = math.nan, math.nan, outcome or "failed"
    return Trial(
        **task.keys,
        strategy=strategy,
        tile=tile,
        seconds=seconds,
        default_seconds=default_seconds,
        error=error,
    )
