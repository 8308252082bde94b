"""Loading library files: the system's own loader and numpy, where the network is one function."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from .compiled import CompiledModel
from .deploy.description import Description, TargetDescription
from .deploy.network import load_network
from .deploy.sealed import read_sealed, source_of
from .errors import TargetError
from .program import CompiledProgram
from .runtime.cpu import architecture, missing_here

_CURE = "Compile the model for this machine"


def load(path: str | Path) -> CompiledModel:
    """Load a library written by `CompiledModel.export_library`.

    A network that is one function takes neither TVM nor torch.

    Parameters
    ----------
    path : path of the file

    Raises
    ------
    LibraryError
        If the file is missing, truncated, altered, of another format, or of another TVM.
    TargetError
        If it was compiled for another CPU than this one.
    """
    path = Path(path)
    description, content = read_sealed(path)
    _check_runs_here(path, description.target)
    program = CompiledProgram(
        lambda: description.target.target(source_of(path)),
        description.inputs,
        description.outputs,
        description.report,
        description.largest_batch,
    )
    network = load_network(path, description, content)
    if network is None:
        return _model_of_tvm(program, path, description, content)
    return CompiledModel(program, lambda: network)


def _model_of_tvm(
    program: CompiledProgram, path: Path, description: Description, content: bytes
) -> CompiledModel:
    """Return a model that TVM's virtual machine runs."""
    from .accelerated import AcceleratedModel
    from .deploy.library import check_series, load_module
    from .machines import Machines

    check_series(path, description.tvm)
    runner = partial(Machines, load_module(content), description.target.threads)
    kind = CompiledModel if description.target.accelerator is None else AcceleratedModel
    return kind(program, runner)


def _check_runs_here(path: Path, target: TargetDescription) -> None:
    """Raise `TargetError` before code for another CPU is mapped."""
    if target.architecture != architecture():
        cause = f"is for {target.architecture}, and this machine is {architecture()}"
        raise TargetError(str(path), cause, _CURE)
    missing = missing_here(target.instructions)
    if missing is None:  # Only LLVM knows this system's CPU.
        from .host import host_features

        missing = sorted(set(target.instructions) - host_features())
    if missing:
        cause = f"needs CPU features that this machine lacks: {', '.join(missing)}"
        raise TargetError(str(path), cause, _CURE)
