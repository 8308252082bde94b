"""Which candidates are measured next: MetaSchedule's search strategy over a small, listed space."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tvm_ffi
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms

from .carrier import schedule_of
from .model import SpeedModel
from .task import DEFAULT, Candidate, Task

EXPLORED = 0.25  # Part of a batch that is drawn, nearer to the default rather than farther.
MAX_CONSIDERED = 4096  # Candidates that the model looks at for a batch.
ATTEMPTS_PER_TRIAL = 8  # Candidates made before giving up finding one whose code is new.


class Search:
    """What was tried of a task, and what to try next.

    Parameters
    ----------
    task : Task
    model : SpeedModel
    tried : set of Candidate
        Measured before this run.
    seed : int
    compares_code : bool
        Leave out candidates whose code equals that of another. That takes longer than measuring
        them where there are many devices.
    """

    def __init__(
        self,
        task: Task,
        model: SpeedModel,
        tried: set[Candidate],
        seed: int,
        compares_code: bool = True,
    ):
        self.task, self.model, self.tried = task, model, set(tried)
        self.rng, self.compares_code = np.random.default_rng(seed), compares_code
        self._codes: set[int] = set()

    def next_batch(self, count: int) -> list[Candidate]:
        """Return the default if it wasn't tried, then the most promising and some drawn ones."""
        batch = [DEFAULT] if DEFAULT not in self.tried else []
        left = [c for c in self.task.candidates if c not in self.tried and c != DEFAULT]
        if len(left) > MAX_CONSIDERED:
            chosen = self.rng.choice(len(left), MAX_CONSIDERED, replace=False)
            left = [left[i] for i in chosen]
        if left:
            for candidate in self._ordered(left, count):
                if len(batch) == count:
                    break
                if self._is_new(candidate):
                    batch.append(candidate)
        self.tried.update(batch)
        return batch

    def _ordered(self, left: list[Candidate], count: int) -> list[Candidate]:
        """Most promising first, with drawn ones in between."""
        scores = self.model.predict(self.task, left)
        best = [left[i] for i in np.argsort(-scores, kind="stable")]
        weights = np.exp(np.clip(scores, -20, 20) - scores.max())
        weights = weights**0.5 + 1e-9
        chosen = self.rng.choice(
            len(left),
            min(len(left), ATTEMPTS_PER_TRIAL * count),
            replace=False,
            p=weights / weights.sum(),
        )
        drawn, ordered = iter(chosen), []
        for candidate in best[: ATTEMPTS_PER_TRIAL * count]:
            explored = self.rng.random() < EXPLORED
            ordered.append(left[next(drawn, 0)] if explored else candidate)
        return list(dict.fromkeys(ordered))

    def _is_new(self, candidate: Candidate) -> bool:
        """Whether a candidate's kernel can be made, and wasn't made by another candidate."""
        self.tried.add(candidate)
        if not self.compares_code:
            return True
        kernel = self.task.kernel(candidate)
        if kernel is None:
            return False
        code = tvm_ffi.structural_hash(kernel.function)
        is_new = code not in self._codes
        self._codes.add(code)
        return is_new


@derived_object
class SearchStrategy(ms.search_strategy.PySearchStrategy):
    """MetaSchedule's interface to `Search`.

    Parameters
    ----------
    search : Search
    trials_left : callable
        How many trials the task may still have; 0 ends it.
    """

    def __init__(self, search: Search, trials_left: Callable[[], int]):
        super().__init__()
        self.search, self.trials_left = search, trials_left
        self._batch = 0

    def _initialize_with_tune_context(self, context: ms.TuneContext) -> None:
        self._args = ms.arg_info.ArgInfo.from_entry_func(context.mod, False)

    def pre_tuning(
        self, max_trials: int, num_trials_per_iter: int, design_spaces: object, *_: object
    ) -> None:
        """Take the size of batches."""
        self._batch = int(num_trials_per_iter)

    def post_tuning(self) -> None:
        """Do nothing."""

    def generate_measure_candidates(self) -> list[ms.MeasureCandidate] | None:
        """Return the next batch, None at the end."""
        count = min(self._batch, self.trials_left())
        batch = self.search.next_batch(count) if count > 0 else []
        if not batch:
            return None
        task = self.search.task
        return [
            ms.search_strategy.MeasureCandidate(schedule_of(task, candidate), self._args)
            for candidate in batch
        ]

    def notify_runner_results(self, measure_candidates: object, results: object) -> None:
        """Do nothing: the journal has them."""

    def clone(self) -> SearchStrategy:
        """Return itself: every task has its own."""
        return self
