"""Libraries and models that a command runs, and the progress of compiling one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ..errors import BitencError, first_line
from .models import READERS, read_model

if TYPE_CHECKING:
    import tvm

    from ..loaded import CompiledModel


def open_library(
    file: Path,
    shapes: Sequence[str] = (),
    target: str = "native",
    strategy: str = "auto",
    threads: int | None = None,
    dump: Path | None = None,
) -> CompiledModel:
    """Load a library, or compile a model, with a bar of its passes on a terminal.

    Raises
    ------
    BitencError
        If the file is neither, or can't be loaded or compiled.
    """
    from ..compiler import build
    from ..loaded import load
    from ..target import load_target
    from ..transform.pipeline import default_pipeline

    if file.suffix.lower() not in READERS:
        return load(file)
    names = default_pipeline(load_target(target, threads), strategy).names
    with compiling(file, names):
        return build(read_model(file, shapes), target, strategy, threads, dump=dump)


_FIRST_OF_CODE = "tirx.BindTarget"


def _advance(bar: Progress, task: TaskID, names: Sequence[str]) -> Any:
    """Return an instrument that moves a bar on when a pass of ours begins."""
    import tvm

    @tvm.ir.instrument.pass_instrument
    class Advance:
        """Names the pass; behind the last one LLVM takes as long as all of them."""

        def run_before_pass(self, _mod: tvm.IRModule, info: tvm.transform.PassInfo) -> None:
            if info.name in names:
                done = names.index(info.name) + 1
                bar.update(task, completed=done, description=info.name)
            elif info.name == _FIRST_OF_CODE:
                bar.update(task, completed=len(names), description="machine code, by LLVM")

    return Advance()


@contextmanager
def compiling(file: Path, names: Sequence[str]) -> Iterator[None]:
    """Show on a terminal how far the passes are; elsewhere nothing."""
    import tvm

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(f"reading {file.name}", total=len(names) + 1)
        instruments = [_advance(bar, task, names)]
        with tvm.transform.PassContext(instruments=instruments):
            yield


def inputs_of(lib: CompiledModel, files: Sequence[Path], seed: int = 0) -> list[np.ndarray]:
    """Arrays of .npy files, or random ones of the right shapes where none are given."""
    if not files:
        from ..deploy.inputs import random_inputs

        return random_inputs(lib.inputs, seed)
    return [read_array(path) for path in files]


def read_array(path: Path) -> np.ndarray:
    """Read a .npy file.

    Raises
    ------
    BitencError
        If it isn't one of numbers, or has fewer bytes than its header says.
    """
    try:  # Mapped, not read: a header may claim any shape, and numpy would make room for it.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            raise ValueError("no array of numbers")
        return np.array(array)
    except Exception as error:  # Of a damaged header, numpy has no common class.
        raise BitencError(
            str(path), f"isn't an array ({first_line(error)})", "Write it by numpy.save"
        ) from None
