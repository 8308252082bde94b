"""Targets: one TOML file each, naming the CPU to LLVM and the schedule rules to try.

A file with an ``[array]`` table, as in targets/vta/, is an accelerator beside this machine's CPU.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import tvm
from tvm.target import codegen

from .accelerator import Accelerator, load_accelerator
from .data import data_folder
from .errors import TargetError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ACCELERATOR = "vta"
SIMULATORS = ("functional", "verilog")
DEFAULT_RULES = ("avx512", "avx2", "generic")  # Each declines what its CPU lacks.
_KEYS = {"description", "emulator", "tvm", "schedule", "core"}


class Named(Protocol):
    """Whatever has a name: of `schedule.RuleSet`, a target knows no more."""

    @property
    def name(self) -> str:
        """What target files call it."""


@dataclass(frozen=True)
class Core:
    """How many instructions one core starts in a cycle, for the cost models that ask.

    Parameters
    ----------
    issue : float
        Of any kind.
    vector : float
        On vectors: logic, sums, counts of bits.
    lookup : float
        Byte look-ups in a table of one register.
    product : float
        Products of bytes: multiplications, or dot and matrix products where it has them.
    in_order : bool
        It starts them in the order of the program: LLVM's schedule decides how long they take.
    """

    issue: float = 1.0
    vector: float = 1.0
    lookup: float = 1.0
    product: float = 1.0
    in_order: bool = False


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
    core: Core = Core()
    emulator: str = ""
    accelerator: Accelerator | None = None
    simulator: str = SIMULATORS[0]

    @property
    def rule_names(self) -> tuple[str, ...]:
        """Names of its rule sets."""
        return tuple(item if isinstance(item, str) else item.name for item in self.rules)

    @property
    def triple(self) -> str:
        """LLVM's name of the platform, e.g. ``x86_64-linux-gnu``."""
        return str(self.tvm_target.attrs.get("mtriple", "")) or codegen.llvm_get_system_triple()

    @property
    def architecture(self) -> str:
        """First part of the triple: ``x86_64``, ``aarch64``, ``armv7``."""
        return self.triple.split("-")[0]

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
        1 compiles without parallel loops; None leaves the count to TVM's thread pool.
    simulator : {"functional", "verilog"}, optional
        Of an accelerator; None is functional.
    rule_sets : sequence of schedule.RuleSet
        Rule sets of your own, which the target's ``rules`` name.

    Raises
    ------
    TargetError
        If there is no such target or simulator, or its file is malformed.
    """
    if threads is not None and threads < 1:
        raise TargetError("threads", f"{threads} isn't a count of threads", "Give 1 or more")
    if isinstance(target, tvm.target.Target):
        target = Target(str(target.attrs.get("mcpu", target.kind.name)), target)
    elif target == "native":
        target = native_target()
    elif not isinstance(target, Target):
        target = read_target(_find(target))
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
    where = f"target file {path}"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TargetError(where, f"isn't TOML ({error})", "Mend that line") from None
    if "array" in content:
        return accelerator_target(path)
    unknown = sorted(set(content) - _KEYS)
    if unknown or not isinstance(content.get("tvm"), dict):
        raise TargetError(
            where,
            f"has unknown keys {unknown}" if unknown else "has no [tvm] table",
            f"Write {', '.join(sorted(_KEYS))}, as the files in targets/ do",
        )
    schedule = content.get("schedule", {})
    rules = schedule.get("rules", list(DEFAULT_RULES)) if isinstance(schedule, dict) else None
    if not (isinstance(rules, list) and all(isinstance(rule, str) for rule in rules)):
        raise TargetError(
            where, "[schedule] rules isn't a list of names", 'Write rules = ["generic"]'
        )
    tvm_target = _tvm_target(content["tvm"], where)
    core = _core(content.get("core", {}), where)
    texts = {key: content.get(key, "") for key in ("description", "emulator")}
    for key, text in texts.items():
        if not isinstance(text, str):
            raise TargetError(where, f"{key} isn't text ({text!r})", "Put it in quotes")
    return Target(path.stem, tvm_target, tuple(rules), core=core, **texts)


def _core(config: object, where: str) -> Core:
    known = [field.name for field in fields(Core)]
    if not isinstance(config, dict) or not set(config) <= set(known):
        raise TargetError(where, "[core] isn't a table of known keys", f"Use {', '.join(known)}")
    numbers = dict(config)
    if not isinstance(numbers.pop("in_order", False), bool):
        raise TargetError(where, "[core] in_order isn't true or false", "Write in_order = true")
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 100:
            raise TargetError(
                where, f"[core] {name} is {value!r}", "Give the instructions that start per cycle"
            )
    return Core(**config)


def accelerator_target(path: Path) -> Target:
    """Return the accelerator of a file beside this machine's CPU."""
    name = ACCELERATOR if path.stem == "default" else path.stem
    accelerator = load_accelerator(path)
    size = f"{accelerator.channels} x 64 x {accelerator.pixels}"
    return replace(
        native_target(),
        name=name,
        accelerator=accelerator,
        description=f"Accelerator of {size} beside this CPU",
    )


def _tvm_target(config: dict, where: str) -> tvm.target.Target:
    cpu = config.get("mcpu")
    try:
        target = tvm.target.Target({"kind": "llvm", **config})
        known = not cpu or codegen.llvm_is_valid_cpu(cpu, target.attrs.get("mtriple", ""))
    except Exception as error:  # TVM's own errors have no common class.
        reason = str(error).strip().splitlines()[-1]
        raise TargetError(where, f"TVM refuses [tvm] ({reason})", "Mend that table") from None
    if not known:
        raise TargetError(where, f"LLVM knows no CPU {cpu!r}", "See `llc -mcpu=help` for its names")
    return target


def native_target() -> Target:
    """Return this machine's CPU, without the features that its system hides.

    LLVM names the CPU by family and model, but a virtual machine may mask features of it, and code
    that used those would die of an illegal instruction.
    """
    cpu = codegen.llvm_get_system_cpu()
    tvm_target = tvm.target.Target({"kind": "llvm", "mcpu": cpu})
    missing = sorted(_hidden_features(set(codegen.llvm_get_cpu_features(tvm_target))))
    if missing:
        mattr = [f"-{name}" for name in missing]
        tvm_target = tvm.target.Target({"kind": "llvm", "mcpu": cpu, "mattr": mattr})
    return Target("native", tvm_target, description=f"this machine ({cpu})")


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
