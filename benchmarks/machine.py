"""What this machine is, and what its instructions allow."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import tvm

from tvm_bitenc.limits import clock_ghz, instruction_set, limits

PACKAGES = ("tvm-bitenc", "apache-tvm", "onnxruntime", "torch", "numpy")


@dataclass(frozen=True)
class Machine:
    """The machine of a measurement, and what ran on it."""

    cpu: str
    instruction_set: str
    clock_ghz: float
    versions: dict[str, str]

    def limits(self, weight_bits: int, act_bits: int, threads: int = 1) -> dict[str, float]:
        """GMAC/s that each strategy can reach at best; empty for an unknown instruction set."""
        return limits(self.instruction_set, weight_bits, act_bits, self.clock_ghz * threads)

    def to_dict(self) -> dict:
        """Plain numbers and strings, as JSON holds them."""
        return asdict(self)


def this_machine() -> Machine:
    """Describe this machine; measures its clock, a second's work."""
    return Machine(cpu_name(), instruction_set(), clock_ghz(), versions())


def cpu_name() -> str:
    """Name of the CPU as the system, or else LLVM, knows it."""
    llvm_name = tvm.target.codegen.llvm_get_system_cpu()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} ({llvm_name})" if names else f"{platform.machine()} ({llvm_name})"


def versions() -> dict[str, str]:
    """Versions of what takes part, of those that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
