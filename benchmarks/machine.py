"""What this machine is."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import tvm

from tvm_bitenc.rates import clock_ghz
from tvm_bitenc.target import native_target

PACKAGES = ("tvm-bitenc", "apache-tvm", "onnxruntime", "openvino", "torch", "numpy")


@dataclass(frozen=True)
class Machine:
    """The machine of a measurement, and what ran on it.

    Parameters
    ----------
    cpu : str
    rates : str
        Where those of its core come from, that limits are counted with; empty if unknown.
    clock_ghz : float
    versions : dict of str to str
    """

    cpu: str
    rates: str
    clock_ghz: float
    versions: dict[str, str]

    def to_dict(self) -> dict:
        """Plain numbers and strings, as JSON holds them."""
        return asdict(self)


def this_machine() -> Machine:
    """Describe this machine; measures its clock, a second's work."""
    return Machine(cpu_name(), native_target().core.source, clock_ghz(), versions())


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
