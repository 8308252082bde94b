"""This machine: what its CPU has, and which code runs on it."""

from __future__ import annotations

from collections.abc import Iterable

from tvm.target import codegen

from .errors import TargetError
from .features import architecture_of, instructions
from .target import Target, native_target


def host_features() -> frozenset[str]:
    """CPU features of this machine, in LLVM's spelling."""
    return native_target().features


def check_runs_here(target: Target) -> None:
    """Raise `TargetError` if this machine can't run code for `target`."""
    host = architecture_of(codegen.llvm_get_system_triple())
    if target.architecture != host:
        way = "Write it with export_c" if target.is_bare else "Export the library"
        raise TargetError(
            f"target {target.name!r}",
            f"is for {target.architecture}, and this machine is {host}",
            f"{way} and run it there, or build with target='native'",
        )
    missing = missing_instructions(target, host_features())
    if missing:
        raise TargetError(
            f"target {target.name!r}",
            f"needs CPU features that this machine lacks: {', '.join(missing)}",
            "Build with target='native'",
        )


def missing_instructions(target: Target, present: Iterable[str]) -> list[str]:
    """Instructions that code for `target` may use and a CPU with these features lacks."""
    return sorted(instructions(target.features, target.architecture) - frozenset(present))
