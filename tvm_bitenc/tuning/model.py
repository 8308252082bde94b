"""The cost model: XGBoost on the knobs of a candidate and the sizes of its layer.

It learns logarithms of speedups over the default, which transfer between layers and devices.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms

from ..errors import BitencError
from ..features import KERNELS
from ..records.file import Line, Trial
from ..records.workload import numbers_of
from ..strategy import ALL_STRATEGIES
from .carrier import candidate_of
from .task import DEFAULT, Candidate, Task, distance

if TYPE_CHECKING:
    import xgboost

PARAMETERS = {
    "max_depth": 6,
    "eta": 0.15,
    "subsample": 0.9,
    "min_child_weight": 2,
    "verbosity": 0,
    "nthread": 1,
}
FEATURES = sorted(name for names in KERNELS.values() for name in names)
ROUNDS = 80
FEWEST = 12  # Trials before it says anything.
STEPS = 4.0  # Of distance, for twice the time.
LOWEST, HIGHEST = -2.0, 2.0  # A failed candidate counts as the lowest.


def need_xgboost() -> ModuleType:
    """Import XGBoost, or say what to install."""
    try:
        import xgboost
    except ImportError:
        raise BitencError(
            "tune", "needs XGBoost, cloudpickle and psutil", "pip install 'tvm-bitenc[tune]'"
        ) from None
    return xgboost


def features(trial_or_task: Trial | Task, candidate: Candidate) -> list[float]:
    """Numbers that the model sees: they need no more than a trial's text says."""
    strategy, tile = candidate
    if isinstance(trial_or_task, Task):
        workload, target = trial_or_task.workload, trial_or_task.keys["target"]
    else:
        workload, target = trial_or_task.workload, trial_or_task.target
    of_layer = numbers_of(workload)
    width, height, words = of_layer["width"], of_layer["height"], target.split()
    return [
        *of_layer.values(),
        *(float(feature in words) for feature in FEATURES),
        *(float(strategy == name) for name in ALL_STRATEGIES),
        tile.pixels,
        math.log2(tile.vectors),
        math.log2(tile.rows),
        math.log2(tile.splits),
        tile.unroll,
        tile.pixels * tile.vectors,
        math.ceil(width / tile.pixels) * tile.pixels / width,
        height / tile.rows,
    ]


class SpeedModel:
    """Predicts the logarithm of a candidate's speedup over the default."""

    def __init__(self):
        self.xgboost = need_xgboost()
        self.rows: list[list[float]] = []
        self.values: list[float] = []
        self.booster: xgboost.Booster | None = None
        self._strategies: set[str] = set()  # Of all trials.
        self._known: set[str] = set()  # Of those that it was trained on.
        self._trained = 0

    def add(self, trials: Iterable[Line]) -> None:
        """Take trials of any layers; lines of other kinds are left out."""
        for trial in trials:
            if not isinstance(trial, Trial) or trial.strategy == DEFAULT[0]:
                continue
            self._strategies.add(trial.strategy)
            self.rows.append(features(trial, trial.candidate))
            value = math.log(trial.speedup) if trial.speedup > 0 else LOWEST
            self.values.append(min(max(value, LOWEST), HIGHEST))

    def train(self) -> None:
        """Fit anew, unless less than a tenth is new."""
        count = len(self.rows)
        if count < FEWEST or count < 1.1 * self._trained:
            return
        self._trained, self._known = count, set(self._strategies)
        data = self.xgboost.DMatrix(np.array(self.rows), np.array(self.values))
        self.booster = self.xgboost.train(PARAMETERS, data, ROUNDS)

    def predict(self, task: Task, candidates: Sequence[Candidate]) -> np.ndarray:
        """Predicted logarithms of speedups; by distance from the default while it knows little.

        A strategy that no trial had, as those of shipped records have no codewords, is judged by
        its cost, and what is known of others holds beside the best of them.
        """
        by_distance = np.array([-distance(task, candidate) for candidate in candidates])
        if self.booster is None:
            return by_distance
        rows = np.array([features(task, candidate) for candidate in candidates])
        found = self.booster.predict(self.xgboost.DMatrix(rows))
        best_known = min((task.costs.get(name, math.inf) for name in self._known), default=1.0)
        found -= math.log(best_known) if math.isfinite(best_known) else 0.0
        is_known = [strategy in self._known for strategy, _ in candidates]
        return np.where(is_known, found, by_distance / STEPS)


@derived_object
class CostModel(ms.cost_model.PyCostModel):
    """MetaSchedule's interface to `SpeedModel`.

    Parameters
    ----------
    model : SpeedModel
    tasks : dict of str to Task
        By workload.
    """

    def __init__(self, model: SpeedModel, tasks: dict[str, Task]):
        super().__init__()
        self.model, self.tasks = model, tasks

    def load(self, path: str) -> None:
        """Read a model in XGBoost's JSON."""
        self.model.booster = self.model.xgboost.Booster(model_file=path)

    def save(self, path: str) -> None:
        """Write the model in XGBoost's JSON; nothing while it knows too little to have one."""
        if self.model.booster is not None:
            self.model.booster.save_model(str(Path(path).with_suffix(".json")))

    def update(
        self,
        context: ms.TuneContext,
        candidates: Sequence[ms.MeasureCandidate],
        results: Sequence[ms.runner.RunnerResult],
    ) -> None:
        """Learn from measurements; their trials were added when they were recorded."""
        self.model.train()

    def predict(
        self, context: ms.TuneContext, candidates: Sequence[ms.MeasureCandidate]
    ) -> np.ndarray:
        """Predicted logarithms of speedups."""
        task = self.tasks[str(context.task_name)]
        return self.model.predict(task, [candidate_of(c.sch.mod) for c in candidates]).astype(float)
