"""Run kernels of other CPUs under QEMU: results bit for bit, and executed instructions.

QEMU knows what each instruction does, and nothing of how long it takes.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tvm
import tvm_ffi

from tvm_bitenc.target import Target

HERE = Path(__file__).parent
TYPE_CODES = {"i": 0, "u": 1, "f": 2}
PACKAGES = (
    "qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-arm-linux-gnueabihf"
    " libc6-dev-armhf-cross"
)


@dataclass(frozen=True)
class Tools:
    """Programs that build and run code of one architecture.

    Parameters
    ----------
    qemu, compiler : str
    """

    qemu: str
    compiler: str


TOOLS = {
    "aarch64": Tools("qemu-aarch64", "aarch64-linux-gnu-gcc"),
    "armv7": Tools("qemu-arm", "arm-linux-gnueabihf-gcc"),
}
CPUS = {  # QEMU's names of a target's CPU, where they differ: the plainest that has all it needs.
    "aarch64": "cortex-a53",
    "cortex-a76": "neoverse-n1",
    "neoverse-n2": "max",
    "armv7-neon": "cortex-a15",
}


def missing_tools(target: Target) -> str | None:
    """What to install before a target's kernels can run here; None if all is there."""
    tools = TOOLS.get(target.architecture)
    if tools is None:
        return f"QEMU isn't set up for {target.architecture}"
    programs = [name for name in (tools.qemu, tools.compiler, "gcc") if not shutil.which(name)]
    if programs:
        return f"{', '.join(programs)} missing: apt-get install --no-install-recommends {PACKAGES}"
    return None


@dataclass(frozen=True, eq=False)
class Run:
    """What one run of a kernel gave.

    Parameters
    ----------
    output : ndarray
    instructions : int
    """

    output: np.ndarray
    instructions: int


class EmulatedKernel:
    """A kernel built for a target that QEMU runs.

    Parameters
    ----------
    function : tirx.PrimFunc
        Takes tensors, the output last.
    target : Target
        One whose kernels start no threads.
    """

    def __init__(self, function, target: Target):
        self.target, self._folder = target, tempfile.TemporaryDirectory()
        folder, tools = Path(self._folder.name), TOOLS[target.architecture]
        module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
        self.library = tvm.compile(module, target=target.tvm_target).mod
        self.library.write_to_file(str(folder / "kernel.o"), "o")
        _run(
            [tools.compiler, "-static", _runner(tools.compiler), "kernel.o", "-o", "kernel"], folder
        )

    @property
    def assembly(self) -> str:
        """The kernel's assembly."""
        return self.library.inspect_source("asm")

    def run(self, inputs: Sequence[np.ndarray], shape: tuple[int, ...], dtype: str) -> Run:
        """Run once.

        Parameters
        ----------
        inputs : sequence of ndarray
        shape, dtype
            Of the output.
        """
        folder, tools = Path(self._folder.name), TOOLS[self.target.architecture]
        described = []
        for i, value in enumerate([*inputs, np.zeros(shape, dtype)]):
            np.ascontiguousarray(value).tofile(folder / f"{i}.raw")
            sizes = ",".join(map(str, value.shape))
            code, bits = TYPE_CODES[value.dtype.kind], value.dtype.itemsize * 8
            described.append(f"{i}.raw:{code}:{bits}:{sizes}")
        cpu = CPUS.get(self.target.name, self.target.name)
        emulator = [tools.qemu, "-cpu", cpu, "-plugin", _plugin(), "-d", "plugin"]
        printed = _run([*emulator, "./kernel", *described], folder)
        output = np.fromfile(folder / f"{len(inputs)}.raw", dtype).reshape(shape)
        return Run(output, int(re.search(r"instructions=(\d+)", printed)[1]))


def _run(command: Sequence[str], folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


@functools.cache
def _build_folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory()


@functools.cache
def _runner(compiler: str) -> str:
    """Object file of the program around kernels."""
    path = Path(_build_folder().name) / f"{compiler}.o"
    include = Path(tvm_ffi.libinfo.find_include_path())
    folders = [f"-I{include}", f"-I{tvm_ffi.libinfo.find_dlpack_include_path()}"]
    _run([compiler, "-O1", "-c", *folders, str(HERE / "runner.c"), "-o", str(path)])
    return str(path)


@functools.cache
def _plugin() -> str:
    """QEMU plugin that counts instructions."""
    path = Path(_build_folder().name) / "icount.so"
    _run(["gcc", "-O2", "-shared", "-fPIC", str(HERE / "icount.c"), "-o", str(path)])
    return str(path)
