"""The programs that build and run code of other CPUs: cross-compilers and QEMU."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import tvm_ffi

import tvm_bitenc
from tvm_bitenc.deploy.linker import gnu_compiler, gnu_options
from tvm_bitenc.target import Target

HERE = Path(__file__).parent
TEMPLATES = Path(tvm_bitenc.__file__).parent / "deploy" / "bundle" / "templates"
BARE = HERE.parents[1] / "examples" / "cortex-m"
# By GNU's name of the architecture.
PACKAGES = {
    "aarch64": "qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "arm": "qemu-user gcc-arm-linux-gnueabihf libc6-dev-armhf-cross",
    "riscv64": "qemu-user gcc-riscv64-linux-gnu libc6-dev-riscv64-cross",
}
BARE_PACKAGES = "qemu-system-arm gcc-arm-none-eabi libnewlib-arm-none-eabi"


def missing_tools(target: Target) -> str | None:
    """What to install before a target's kernels can run here; None if all is there."""
    compiler = gnu_compiler(target)
    packages = BARE_PACKAGES if target.is_bare else PACKAGES.get(compiler.split("-")[0])
    if packages is None or not target.emulator:
        return f"target {target.name} has no emulator or no cross-compiler"
    programs = [target.emulator.split()[0], compiler, "gcc"]
    programs = [name for name in programs if not shutil.which(name)]
    if programs:
        return f"{', '.join(programs)} missing: apt-get install --no-install-recommends {packages}"
    return None


def command(
    target: Target, program: str, arguments: Sequence[str], with_blocks: bool = False
) -> list[str]:
    """Command that runs a program of the target and prints how many instructions it executes."""
    plugin = _plugin() + (",blocks=on" if with_blocks else "")
    counted = [*target.emulator.split(), "-plugin", plugin, "-d", "plugin"]
    if not target.is_bare:
        return [*counted, program, *arguments]
    words = "".join(f",arg={word}" for word in (program, *arguments))
    hosted = ["-semihosting-config", f"enable=on,target=native{words}", "-kernel", program]
    return [*counted, "-nographic", "-monitor", "none", "-serial", "none", *hosted]


def link(target: Target, folder: Path, sources: Sequence[str], program: str) -> None:
    """Link sources and objects of a folder with the runner, to a program in the folder."""
    compiler = (gnu_compiler(target), *gnu_options(target))
    board = (f"-T{BARE / 'mps2.ld'}", str(BARE / "startup.c"), "--specs=rdimon.specs")
    options = [*(board if target.is_bare else ()), "-o", program, "-lm"]
    run([*compiler, "-O1", "-static", *_includes(), *sources, _runner(compiler), *options], folder)


def run(command: Sequence[str], folder: Path | None = None) -> str:
    """Run a program and return what it prints; `RuntimeError` with that if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


@functools.cache
def _build_folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory()


def _includes() -> list[str]:
    found = [tvm_ffi.libinfo.find_include_path(), tvm_ffi.libinfo.find_dlpack_include_path()]
    return [f"-I{folder}" for folder in (*found, HERE, TEMPLATES)]


@functools.cache
def _runner(compiler: tuple[str, ...]) -> str:
    """Object file of the program around kernels."""
    path = Path(_build_folder().name) / f"{''.join(compiler)}.o"
    run([*compiler, "-O1", "-c", *_includes(), str(HERE / "runner.c"), "-o", str(path)])
    return str(path)


@functools.cache
def _plugin() -> str:
    """QEMU plugin that counts instructions."""
    path = Path(_build_folder().name) / "icount.so"
    run(["gcc", "-O2", "-shared", "-fPIC", str(HERE / "icount.c"), "-o", str(path)])
    return str(path)
