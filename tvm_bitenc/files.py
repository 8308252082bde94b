"""Files that appear whole or not at all, and scratch folders that outlive no process for long."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from .errors import BitencError

_SUFFIX = ".part"
_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def written_whole(path: Path, error: type[BitencError] = BitencError) -> Iterator[Path]:
    """Give a path in a scratch folder beside `path` to write to; the file moves only on success.

    Parameters
    ----------
    path : Path
    error : type
        Kind of error for a place that can't be written.

    Raises
    ------
    BitencError
        Of that kind.
    """
    with scratch_folder(path.parent, path.name, error) as folder:
        temporary = folder / path.name
        yield temporary
        try:
            temporary.replace(path)
        except OSError as cause:
            reason = f"can't be written ({cause.strerror})"
            raise error(str(path), reason, "Use another name") from None


@contextmanager
def scratch_folder(
    parent: Path, name: str, error: type[BitencError] = BitencError
) -> Iterator[Path]:
    """Make a folder for what `name` needs for a while, and remove it however the block ends.

    That holds for errors, Ctrl-C, SIGTERM and SIGHUP. A process that is killed at once leaves its
    folder; the next one that makes a folder of this name here removes it. A folder is locked as
    long as its process lives, so none in use is removed.

    Parameters
    ----------
    parent : Path
    name : str
        Part of the folder's name.
    error : type
        Kind of error where none can be made.
    """
    _remove_abandoned(parent, name)
    with _signals_unwind():
        try:
            folder, lock = _locked_folder(parent, name)
        except OSError as cause:
            reason = f"can't be written ({cause.strerror})"
            raise error(str(parent / name), reason, "Use another folder") from None
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _prefix(name: str) -> str:
    """How names of scratch folders begin; with room for more where `name` is of the utmost size."""
    return f".{name[:48]}."


def _locked_folder(parent: Path, name: str) -> tuple[Path, int]:
    """Make a folder; the system drops its lock when this process ends in whatever way."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(name), suffix=_SUFFIX, dir=parent))
        with suppress(FileNotFoundError):  # Another process may take it for an abandoned one,
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            with suppress(OSError):  # which it won't on file systems that have no locks.
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def _remove_abandoned(parent: Path, name: str) -> None:
    """Remove folders whose process is gone."""
    try:
        entries = [entry for entry in os.scandir(parent) if entry.name.startswith(_prefix(name))]
    except OSError:
        return
    for entry in entries:
        if entry.name.endswith(_SUFFIX):
            _remove_unless_locked(entry.path)


def _remove_unless_locked(folder: str) -> None:
    with suppress(OSError):  # No folder, locked, removed meanwhile, or without locks at all.
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_uid == os.getuid():  # Nothing of another user.
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


class _Ended(BaseException):
    """A signal that ends the process, as an exception that runs `finally` blocks first."""


@contextmanager
def _signals_unwind() -> Iterator[None]:
    """Let signals that would end the process end the block first.

    Only those that nobody handles, and in the main thread, which alone may say how.
    """
    chosen = []
    if threading.current_thread() is threading.main_thread():
        chosen = [s for s in _ENDING_SIGNALS if signal.getsignal(s) is signal.SIG_DFL]

    def end(number: int, _frame: FrameType | None) -> None:
        raise _Ended(number)

    for number in chosen:
        signal.signal(number, end)
    ended = None
    try:
        yield
    except _Ended as caught:
        ended = caught
    finally:
        for number in chosen:
            signal.signal(number, signal.SIG_DFL)
    if ended is not None:
        os.kill(os.getpid(), ended.args[0])
