"""What this machine's CPU has, in LLVM's words, as its system tells: no compiler is asked."""

from __future__ import annotations

import ctypes
import platform
import re
from collections.abc import Iterable
from pathlib import Path

# Linux's names where they aren't LLVM's but for punctuation.
_X86 = {"pni": "sse3", "abm": "lzcnt", "bmi1": "bmi", "lahf_lm": "sahf"}
# Bits of the kernel's HWCAP and HWCAP2.
_AARCH64: tuple[dict[str, int], ...] = (
    {"fp-armv8": 0, "neon": 1, "fullfp16": 10, "dotprod": 20, "sve": 22, "fp16fml": 23},
    {"sve2": 1, "sve-bitperm": 4, "f32mm": 10, "f64mm": 11, "bf16": 14, "i8mm": 13, "sme": 23},
)
_ARM: tuple[dict[str, int], ...] = ({"vfp2": 6, "dsp": 7, "neon": 12, "vfp3": 13, "vfp4": 16}, {})
_HWCAP, _HWCAP2 = 16, 26
# LLVM's parts of what the kernel has one bit for.
_PARTS = {
    "vfp2": ("vfp2sp",),
    "vfp3": ("vfp3d16", "vfp3d16sp", "vfp3sp", "vfp2", "vfp2sp"),
    "vfp4": ("vfp4d16", "vfp4d16sp", "vfp4sp", "vfp3", "vfp3d16", "vfp3d16sp", "vfp3sp"),
    "neon": ("fp16",),
}


def architecture() -> str:
    """First part of this machine's triple."""
    return {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())


def cpu_features() -> frozenset[str] | None:
    """Features of this CPU, with LLVM's names but for punctuation; None where they aren't known."""
    machine = architecture()
    if machine == "x86_64":
        return _x86_features(Path("/proc/cpuinfo"))
    tables = {"aarch64": _AARCH64}.get(machine) or (_ARM if machine.startswith("arm") else None)
    if tables is None or platform.system() != "Linux":
        return None
    capabilities = ctypes.CDLL(None).getauxval
    capabilities.restype, capabilities.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    present = set()
    for kind, table in zip((_HWCAP, _HWCAP2), tables):
        bits = capabilities(kind)
        present |= {name for name, bit in table.items() if bits >> bit & 1}
    present.update(part for name in list(present) for part in _PARTS.get(name, ()))
    return frozenset(map(_bare, present))


def _x86_features(cpuinfo: Path) -> frozenset[str] | None:
    if not cpuinfo.exists():
        return None
    found = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
    return found and frozenset(_bare(_X86.get(flag, flag)) for flag in found.group(1).split())


def missing_here(needed: Iterable[str]) -> list[str] | None:
    """Which of LLVM's features this CPU lacks; None where that isn't known."""
    present = cpu_features()
    return None if present is None else sorted(n for n in needed if _bare(n) not in present)


def _bare(name: str) -> str:
    return re.sub(r"[_.-]", "", name)
