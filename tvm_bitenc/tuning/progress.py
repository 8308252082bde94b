"""What a person sees while tuning runs: layer, trials, best so far, time left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..records.file import Trial
from .task import Task


@dataclass
class Best:
    """Best of a task so far.

    Parameters
    ----------
    trials : int
    speedup : float
        Over the default, at least 1: that is a candidate too.
    seconds, default_seconds : float
        Per run; infinite before the first measurement.
    limit : float or None
        GMAC/s that the hardware allows, of the best strategy; None where it isn't known.
    """

    trials: int = 0
    speedup: float = 1.0
    seconds: float = float("inf")
    default_seconds: float = float("inf")
    limit: float | None = None

    def add(self, trial: Trial) -> None:
        """Take a trial."""
        self.trials += 1
        if trial.error:
            return
        self.default_seconds = min(self.default_seconds, trial.default_seconds)
        self.seconds = min(self.seconds, trial.seconds, trial.default_seconds)
        self.speedup = max(self.speedup, trial.speedup)

    def gmacs(self, task: Task) -> float:
        """GMAC/s."""
        return task.layer.macs / self.seconds / 1e9

    def share_of_limit(self, task: Task) -> float:
        """Part of the limit, 0 where that isn't known."""
        return self.gmacs(task) / self.limit if self.limit else 0.0


class Progress(Protocol):
    """Is told what happens."""

    def start(self, trials: int) -> None:
        """So many trials are ahead, those of an earlier run not counted."""

    def trial(self, task: Task, best: Best, per_task: int) -> None:
        """One trial is done."""

    def say(self, message: str) -> None:
        """Something that isn't a trial."""

    def stop(self) -> None:
        """Tuning is over."""


class Silent:
    """Shows nothing."""

    def start(self, trials: int) -> None:
        """Do nothing."""

    def trial(self, task: Task, best: Best, per_task: int) -> None:
        """Do nothing."""

    def say(self, message: str) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""


class Bar:
    """A line that rich draws."""

    def __init__(self):
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._rich = RichProgress(
            TextColumn("{task.description}", justify="left"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[best]}"),
            TimeRemainingColumn(compact=True),
        )
        self._id = self._rich.add_task("tuning", total=None, best="")

    def start(self, trials: int) -> None:
        """Show the line."""
        self._rich.update(self._id, total=trials)
        self._rich.start()

    def trial(self, task: Task, best: Best, per_task: int) -> None:
        """Move on."""
        self._rich.update(
            self._id,
            advance=1,
            description=f"{task.name} {best.trials}/{per_task}",
            best=described(task, best),
        )

    def say(self, message: str) -> None:
        """Print above the line."""
        self._rich.console.print(message, highlight=False, markup=False)

    def stop(self) -> None:
        """Leave the line as it is."""
        self._rich.stop()


def described(task: Task, best: Best) -> str:
    """Speed of the best candidate, in words."""
    if best.seconds == float("inf"):
        return ""
    share = best.share_of_limit(task)
    of_limit = f", {100 * share:.0f} % of limit" if share else ""
    return f"{best.gmacs(task):.0f} GMAC/s{of_limit}, {best.speedup:.2f} x default"


def shown(progress: bool | Progress) -> Progress:
    """Return what shows progress: rich's line where rich is there and it is wanted."""
    if not isinstance(progress, bool):
        return progress
    try:
        return Bar() if progress else Silent()
    except ImportError:
        return Silent()
