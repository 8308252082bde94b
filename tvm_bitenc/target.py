"""Targets: one TOML file each, naming the CPU to LLVM and the schedule rules to try.

A file with an ``[array]`` table, as in targets/vta/, is an accelerator beside this machine's CPU.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any, Protocol

import tvm
from msgspec import Meta
from tvm.target import codegen

from .accelerator import Accelerator, AcceleratorFile
from .data import data_folder
from .decode import WRITTEN_BY_HAND, Document, Name, Source, Text
from .errors import TargetError
from .features import architecture_of, kernel_features
from .tvm_options import TvmOptions
from .tvm_target import at_level, tvm_target, with_whole_triple

ACCELERATOR = "vta"
SIMULATORS = ("functional", "verilog")
# Each declines what its CPU lacks.
DEFAULT_RULES = ("avx512", "avx2", "i8mm", "dotprod", "neon", "generic")
_NAME = re.compile(r"[\w.+ -]{1,100}")
Rate = Annotated[float, Meta(gt=0, lt=100)]


class Named(Protocol):
    """Whatever has a name: of `schedule.RuleSet`, a target knows no more."""

    @property
    def name(self) -> str:
        """What target files call it."""


class Core(Document, frozen=True):
    """How many instructions one core starts in a cycle, on vectors of its widest rule set.

    The rates that are there without a file are no CPU's: products and look-ups are half as many as
    other instructions on vectors, as on most.

    Parameters
    ----------
    issue : float
        Of any kind.
    vector : float
        On vectors, of any kind: a core has so many pipes for them.
    count : float
        Counts of bits.
    lookup : float
        Byte look-ups in a table of one register.
    product : float
        Products of bytes: multiplications, or dot and matrix products where it has them.
    weight_bytes : float
        Bytes of weights that come from a far cache.
    in_order : bool
        It starts them in the order of the program: LLVM's schedule decides how long they take.
    source : str
        Where the rates come from; empty where they aren't known to be this CPU's.
    """

    issue: Rate = 4.0
    vector: Rate = 2.0
    count: Rate = 2.0
    lookup: Rate = 1.0
    product: Rate = 1.0
    weight_bytes: Rate = 25.0
    in_order: bool = False
    source: Text = ""


class Schedule(Document, frozen=True):
    """``[schedule]`` of a target's file."""

    rules: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=32)] = DEFAULT_RULES


class BoardFile(Document, frozen=True):
    """A file in targets/ that is another name of one there."""

    same_as: Name
    description: Text = ""


class TargetFile(Document, frozen=True):
    """A file in targets/."""

    tvm: TvmOptions
    description: Text = ""
    emulator: Text = ""
    schedule: Schedule = Schedule()
    core: Core = Core()


@dataclass(frozen=True)
class Target:
    """What the compiler knows of a machine.

    Parameters
    ----------
    name : str
        Name of the TOML file without its ending, or of the `tvm.target.Target`.
    tvm_target : tvm.target.Target
        What LLVM generates code for.
    rules : tuple of str or RuleSet
        Schedule rule sets, tried in this order; see `tvm_bitenc.schedule`.
    threads : int or None
        Threads to use; None leaves it to TVM's pool.
    description : str
    core : Core
    emulator : str
        Command that runs its programs on other machines, e.g. ``qemu-aarch64 -cpu cortex-a53``;
        empty if there is none.
    accelerator : Accelerator, optional
        Runs the layers that it supports; `tvm_target` is then the CPU beside it.
    simulator : {"functional", "verilog"}
        What stands for the accelerator when the model runs.
    """

    name: str
    tvm_target: tvm.target.Target
    rules: tuple[str | Named, ...] = DEFAULT_RULES
    threads: int | None = None
    description: str = ""
    core: Core = field(default_factory=Core)
    emulator: str = ""
    accelerator: Accelerator | None = None
    simulator: str = SIMULATORS[0]

    def __post_init__(self) -> None:
        object.__setattr__(self, "tvm_target", at_level(self.tvm_target))  # Whoever makes it.

    @property
    def rule_names(self) -> tuple[str, ...]:
        """Names of its rule sets."""
        return tuple(item if isinstance(item, str) else item.name for item in self.rules)

    @property
    def cpu(self) -> str:
        """LLVM's name of the CPU; empty where code is for any of its kind."""
        return str(self.tvm_target.attrs.get("mcpu", ""))

    @property
    def triple(self) -> str:
        """LLVM's name of the platform, e.g. ``x86_64-linux-gnu``."""
        return str(self.tvm_target.attrs.get("mtriple", "")) or codegen.llvm_get_system_triple()

    @property
    def architecture(self) -> str:
        """First part of the triple: ``x86_64``, ``aarch64``, ``armv7``."""
        return architecture_of(self.triple)

    @property
    def is_bare(self) -> bool:
        """Whether it has no operating system: no threads, no files, no shared libraries."""
        return "none" in self.triple.split("-")[1:]

    @cached_property
    def features(self) -> frozenset[str]:
        """CPU features that generated code may use, in LLVM's spelling."""
        names = set(codegen.llvm_get_cpu_features(self.tvm_target))
        for attribute in self.tvm_target.attrs.get("mattr", []):
            (names.add if attribute[0] == "+" else names.discard)(str(attribute)[1:])
        return frozenset(names)


def target_names() -> list[str]:
    """Return the targets that ship with tvm-bitenc."""
    return sorted(
        ["native", ACCELERATOR, *(path.stem for path in data_folder("targets").glob("*.toml"))]
    )


def load_target(
    target: str | Path | tvm.target.Target | Target,
    threads: int | None = None,
    simulator: str | None = None,
    rule_sets: Sequence[Named] = (),
) -> Target:
    """Find a target.

    Parameters
    ----------
    target : str, Path, tvm.target.Target or Target
        ``"native"``, a name from targets/, a path to such a TOML file, or a target of TVM's.
    threads : int, optional
        1 compiles without parallel loops; None leaves the count to TVM's thread pool. A target
        without operating system has one.
    simulator : {"functional", "verilog"}, optional
        Of an accelerator; None is functional.
    rule_sets : sequence of schedule.RuleSet
        Rule sets of your own, which the target's ``rules`` name.

    Raises
    ------
    TargetError
        If there is no such target or simulator, or its file is malformed.
    """
    if threads is not None and (not isinstance(threads, Integral) or threads < 1):
        raise TargetError("threads", f"{threads!r} isn't a count of threads", "Give 1 or more")
    if not isinstance(target, (str, os.PathLike, tvm.target.Target, Target)):
        raise TargetError("target", f"is of class {type(target).__name__}", "Give a name or a path")
    if isinstance(target, tvm.target.Target):
        cpu, changed = str(target.attrs.get("mcpu", "")), target.attrs.get("mattr", [])
        core = Core() if changed else _shipped_core(cpu)
        target = Target(cpu or str(target.kind.name), with_whole_triple(target), core=core)
    elif target == "native":
        target = native_target()
    elif not isinstance(target, Target):
        target = read_target(_find(os.fspath(target)))
    threads = _threads(target, threads)
    own = {rules.name: rules for rules in rule_sets}
    named = zip(target.rule_names, target.rules)
    target = replace(target, rules=tuple(own.get(name, rules) for name, rules in named))
    if simulator is None:
        return replace(target, threads=threads)
    if target.accelerator is None or simulator not in SIMULATORS:
        is_cpu = target.accelerator is None
        raise TargetError(
            f"simulator {simulator!r}",
            f"target {target.name!r} is a CPU" if is_cpu else "isn't known",
            "Leave simulator=None" if is_cpu else f"Use one of {', '.join(SIMULATORS)}",
        )
    return replace(target, threads=threads, simulator=simulator)


def _threads(target: Target, threads: int | None) -> int | None:
    """Threads of a target; `TargetError` for more than it can have."""
    if not target.is_bare:
        return threads
    if threads is not None and threads > 1:
        raise TargetError(
            f"threads={threads}",
            f"target {target.name!r} has no operating system, and so one thread",
            "Leave threads out",
        )
    return 1


def _find(target: str | Path) -> Path:
    if target == ACCELERATOR:
        return data_folder("targets") / ACCELERATOR / "default.toml"
    shipped = data_folder("targets") / f"{target}.toml"
    if shipped.is_file():
        return shipped
    if Path(target).is_file():
        return Path(target)
    raise TargetError(
        f"target {str(target)!r}",
        "there is no such name and no such file",
        f"Use one of {', '.join(target_names())}, or a path to a TOML file like those in targets/",
    )


def read_target(path: Path) -> Target:
    """Read a target file; `TargetError` names what is wrong with it."""
    cure = "Write it as the files in targets/ are"
    source = Source(f"target file {path}", cure, TargetError, WRITTEN_BY_HAND)
    if not _NAME.fullmatch(path.stem):  # It stands in sources that are exported.
        raise source.fault("isn't named by letters, digits, spaces and any of . + - _")
    content = source.toml(source.read(path), dict[str, Any])
    if "array" in content:
        return accelerator_target(path, source.convert(content, AcceleratorFile).accelerator())
    if "same_as" in content:
        return _board(path, source.convert(content, BoardFile), source)
    file = source.convert(content, TargetFile)
    return Target(
        path.stem,
        tvm_target(file.tvm, source),
        file.schedule.rules,
        description=file.description,
        core=file.core,
        emulator=file.emulator,
    )


def _board(path: Path, file: BoardFile, source: Source) -> Target:
    """Return the target that a file gives another name."""
    shipped = data_folder("targets") / f"{file.same_as}.toml"
    is_name = _NAME.fullmatch(file.same_as) is not None and file.same_as != path.stem
    if not is_name or not shipped.is_file():
        raise source.fault(f"is same_as {file.same_as!r}, which is no other file in targets/")
    target = read_target(shipped)
    return replace(target, name=path.stem, description=file.description or target.description)


def accelerator_target(path: Path, accelerator: Accelerator) -> Target:
    """Return the accelerator of a file beside this machine's CPU."""
    name = ACCELERATOR if path.stem == "default" else path.stem
    size = f"{accelerator.channels} x 64 x {accelerator.pixels}"
    return replace(
        native_target(),
        name=name,
        accelerator=accelerator,
        description=f"Accelerator of {size} beside this CPU",
    )


def native_target() -> Target:
    """Return this machine's CPU, without the features that its system hides.

    Rates of its core are those of the file in targets/ that names this CPU, if there is one.

    LLVM names the CPU by family and model, but a virtual machine may mask features of it, and code
    that used those would die of an illegal instruction.
    """
    cpu = codegen.llvm_get_system_cpu()
    tvm_target = tvm.target.Target({"kind": "llvm", "mcpu": cpu})
    core = _shipped_core(cpu)
    missing = sorted(_hidden_features(set(codegen.llvm_get_cpu_features(tvm_target))))
    if missing:
        mattr = [f"-{name}" for name in missing]
        tvm_target = tvm.target.Target({"kind": "llvm", "mcpu": cpu, "mattr": mattr})
        if kernel_features(missing, platform.machine()):
            core = Core()  # Those rates are of instructions that aren't there.
    return Target("native", tvm_target, description=f"this machine ({cpu})", core=core)


def _shipped_core(cpu: str) -> Core:
    """Rates in the file of a CPU's name, for files are called as LLVM calls their CPU."""
    path = data_folder("targets") / f"{cpu}.toml"
    if not cpu or not path.is_file():
        return Core()
    target = read_target(path)
    return target.core if target.cpu == cpu else Core()


def _hidden_features(claimed: set[str]) -> set[str]:
    """Vector features that LLVM claims for the CPU and the kernel doesn't list."""
    if platform.machine() not in ("x86_64", "AMD64") or not Path("/proc/cpuinfo").exists():
        return set()
    flags = next(
        (
            line
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("flags")
        ),
        "",
    )
    present = {flag.replace("_", "") for flag in flags.partition(":")[2].split()}
    vector = {name for name in claimed if name.startswith(("avx", "fma", "f16c", "gfni", "vaes"))}
    return {name for name in vector if present and name.replace("_", "") not in present}
