"""Repeat what made records count: each against the default once more, on this device or a farm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ..records.file import Record, file_of, read_lines, write_lines
from ..records.workload import target_key, tvm_version
from ..target import Target, load_target
from .artifact import Artifact
from .builder import BuilderPool, Workshop
from .compare import beats_default, comparison
from .devices import device_for
from .measure import Times
from .runner import Device
from .synthetic import task_of


@dataclass(frozen=True)
class Verdict:
    """What became of a record.

    Parameters
    ----------
    record : Record
    speedup : float or None
        Measured now; None where that wasn't possible.
    reason : str
        Why the record is no longer applied; empty where it is.
    """

    record: Record
    speedup: float | None
    reason: str = ""


def verify(
    database: str | Path,
    target: str | Path | Target = "native",
    runner: str | None = None,
    *,
    keep: bool = False,
    timeout: float = 30.0,
    said: Callable[[Verdict], None] = lambda verdict: None,
) -> list[Verdict]:
    """Compare the records of a target with the defaults again, and drop those that don't win.

    Weights are random: no kernel's speed depends on them.

    Parameters
    ----------
    database : path
    target : str, Path or Target
        Records for others stay as they are.
    runner : str, optional
        As for `tune`.
    keep : bool
        Leave the file as it is.
    timeout : float
        Seconds that a comparison may take.
    said : callable
        Called with each verdict when it is known.

    Raises
    ------
    RecordError
        If the file can't be read.
    """
    path, target = file_of(database), load_target(target)
    lines = read_lines(path)
    keys = target_key(target), tvm_version()
    records = [x for x in lines if isinstance(x, Record) and (x.target, x.tvm) == keys]
    if not records:
        return []
    device, pool = device_for(runner, target, timeout), BuilderPool()
    verdicts = []
    try:
        for record in records:
            verdicts.append(_verdict(record, target, Workshop(pool), device))
            said(verdicts[-1])
    finally:
        pool.close()
        device.close()
    lost = [verdict.record for verdict in verdicts if verdict.reason]
    if lost and not keep:
        write_lines([line for line in lines if line not in lost], path)
    return verdicts


def _verdict(record: Record, target: Target, workshop: Workshop, device: Device) -> Verdict:
    task = task_of(record.workload, target)
    space = task.spaces.get(record.strategy) if task else None
    if task is None or space is None or not space.allows(record.tile):
        return Verdict(record, None, "names no kernel of this release of tvm-bitenc")
    (artifact,) = workshop.build([(task, (record.strategy, record.tile))])
    if not isinstance(artifact, Artifact):
        return Verdict(record, None, "doesn't compile")
    (times,) = device.run([comparison(workshop.job_of(artifact.folder))], lambda *_: None)
    if not isinstance(times, Times):
        return Verdict(record, None, times)
    lost = "" if beats_default(times) else "doesn't beat the default any more"
    return Verdict(record, median(times.speedups), lost)
