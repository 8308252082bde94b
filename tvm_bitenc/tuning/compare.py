"""A record counts only if it beats the default in a comparison of its own."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

from ..records.file import Record
from .measure import Job, Times
from .task import Candidate, Task

PLACEMENTS, TURNS = 9, 5
LEAST = 1.01  # Median over placements of memory; less is noise.
WORST = 0.98  # And a placement that is slower than this speaks against it.
MOST_SLOWER = 2  # Of the placements.


def comparison(job: Job) -> Job:
    """Return a job that takes longer, and is the surer for it."""
    return replace(job, placements=PLACEMENTS, turns=TURNS)


def beats_default(times: Times) -> bool:
    """Whether a candidate won: by its median, and in almost every placement of memory."""
    slower = sum(speedup < WORST for speedup in times.speedups)
    return median(times.speedups) >= LEAST and slower <= MOST_SLOWER


def record_of(task: Task, candidate: Candidate, times: Times) -> Record:
    """Return the record of a candidate that won."""
    speedup = round(median(times.speedups), 4)
    return Record(**task.keys, strategy=candidate[0], tile=candidate[1], speedup=speedup)
