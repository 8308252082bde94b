"""`tune`: from a module and a target to records."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import tvm

from ..data import data_folder
from ..errors import BitencError
from ..records.file import FILE_IN_FOLDER, Journal, Line, RecordError, read_lines
from ..records.workload import target_key
from ..target import Target, load_target
from ..transform.pipeline import Pipeline, default_pipeline
from .progress import Progress, shown
from .result import LayerResult
from .task import tasks_of

DEFAULT_TRIALS = 64
NEAR_LIMIT = 0.97  # Of what the hardware allows: then a layer is left alone.


def tune(
    mod: tvm.IRModule,
    target: str | Path | tvm.target.Target | Target = "native",
    trials: int = DEFAULT_TRIALS,
    database: str | Path | None = None,
    runner: str | None = None,
    *,
    threads: int | None = None,
    warm_start: bool | Sequence[str | Path] = True,
    near_limit: float = NEAR_LIMIT,
    timeout: float = 10.0,
    builders: int | None = None,
    progress: bool | Progress = True,
    seed: int = 0,
    pipeline: Callable[..., Pipeline] = default_pipeline,
) -> list[LayerResult]:
    """Find faster kernels for the layers of a module, and record them.

    Layers of the same kind are tuned once, those that take most time first. Each trial is on the
    disk when it is done: a run that was interrupted goes on where it was.

    Parameters
    ----------
    mod : tvm.IRModule
        As for `tvm_bitenc.build`.
    target : str, Path or tvm.target.Target
        As for `tvm_bitenc.build`.
    trials : int
        Candidates per kind of layer, the default and those of earlier runs included.
    database : path, optional
        File that the records go to, or a folder where MetaSchedule keeps its own database beside
        them. By default ``tuned-CPU.jsonl`` in the current folder.
    runner : str, optional
        ``"rpc://host:port/key"`` measures on the devices behind a tracker; None on this machine.
    threads : int, optional
        As for `tvm_bitenc.build`; records hold for this number of threads only.
    warm_start : bool or sequence of paths
        Whether the cost model learns from the records that ship, or from which others.
    near_limit : float
        Part of the hardware's limit at which a layer is left alone.
    timeout : float
        Seconds after which a candidate that runs is stopped.
    builders : int, optional
        Processes that compile, by default one per core.
    progress : bool or Progress
    seed : int
    pipeline : callable
        As for `tvm_bitenc.build`.

    Returns
    -------
    list of LayerResult
        One per kind of layer; empty if nothing can be tuned.

    Raises
    ------
    BitencError
        If packages are missing, the records can't be read or written, or a tracker doesn't answer.
    TargetError
        For an unknown target, or one that this machine can't run.
    """
    if trials < 1:
        raise BitencError("trials", f"{trials} isn't a number of trials", "Give 1 or more")
    _need_packages()
    from .devices import device_for
    from .session import Session

    target = load_target(target, threads)
    tasks = tasks_of(mod, target, pipeline)
    path, folder = _places(database, target)
    device = device_for(runner, target, timeout)
    try:
        journal = Journal(path)
    except RecordError:
        device.close()
        raise
    session = Session(
        tasks, journal, device, shown(progress), trials, near_limit, builders, seed, folder
    )
    session.learn(warm_lines(warm_start))
    with _stopping(session.stop):
        return session.run()


def _need_packages() -> None:
    try:
        import cloudpickle  # noqa: F401
        import psutil  # noqa: F401
        import tornado  # noqa: F401
        import xgboost  # noqa: F401
    except ImportError as error:
        raise BitencError("tune", f"needs {error.name}", "pip install 'tvm-bitenc[tune]'") from None


def _places(database: str | Path | None, target: Target) -> tuple[Path, Path | None]:
    """File of records, and the folder of MetaSchedule's database if one is wanted."""
    if database is None:
        return Path(f"tuned-{target_key(target).split()[1]}.jsonl"), None
    path = Path(database)
    if path.is_dir() or not path.suffix:
        return path / FILE_IN_FOLDER, path
    return path, None


def warm_lines(warm_start: bool | Sequence[str | Path]) -> list[Line]:
    """Read what the cost model may learn from before the first trial."""
    if warm_start is False:
        return []
    paths: Sequence[str | Path] = (
        sorted(data_folder("schedules").glob("*.jsonl")) if warm_start is True else warm_start
    )
    lines: list[Line] = []
    for path in paths:
        try:
            lines += read_lines(Path(path))
        except RecordError as error:
            warnings.warn(f"{error} The cost model doesn't learn from it.", stacklevel=3)
    return lines


@contextmanager
def _stopping(stop: Callable[[], None]):
    """Let Ctrl-C end tuning in order; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        stop()

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
