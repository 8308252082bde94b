"""Progress of a long run: a bar, a callback, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int, str], None]


@contextmanager
def progress_of(progress: bool | Progress) -> Iterator[Progress]:
    """Yield what is called with ``(done, total, description)`` after every step.

    Parameters
    ----------
    progress : bool or callable
        True draws a bar on standard error where `rich` is installed.
    """
    if callable(progress):
        yield progress
        return
    try:
        from rich.console import Console
        from rich.progress import Progress as Bar
    except ImportError:
        progress = False
    if not progress:
        yield lambda done, total, description: None
        return
    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("quantizing")

        def show(done: int, total: int, description: str) -> None:
            bar.update(task, completed=done, total=total, description=description)

        yield show
