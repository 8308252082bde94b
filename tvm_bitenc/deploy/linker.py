"""Linkers for a target: the user's, gcc, ziglang from PyPI, or GNU's cross-compiler."""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import sys

from tvm.target import codegen

from ..errors import LibraryError
from ..features import architecture_of
from ..target import Target

# The oldest GNU C library of a system that TVM's wheels run on.
_GLIBC = "2.28"
# GNU's names of floating-point units that compute float32 alone.
_FPU = {"cortex-m4": ("-mfpu=fpv4-sp-d16",), "cortex-m7": ("-mfpu=fpv5-sp-d16",)}


def find_linker(target: Target, cc: str | None = None) -> list[str] | None:
    """Return the command of a C compiler that links for `target`, or None.

    Parameters
    ----------
    target : Target
    cc : str, optional
        The user's choice, with options.

    Raises
    ------
    LibraryError
        If `cc` isn't there.
    """
    if cc is not None:
        command = shlex.split(cc)
        if not command or shutil.which(command[0]) is None:
            raise LibraryError(f"linker {cc!r}", "isn't installed", "Give another cc=")
        return command
    gnu = [gnu_compiler(target)]
    choices = [gnu, zig_command(target)] if is_native(target) else [zig_command(target), gnu]
    return next((choice for choice in choices if choice and shutil.which(choice[0])), None)


def zig_command(target: Target) -> list[str] | None:
    """Return ``zig cc`` for `target`, if PyPI's ziglang is installed."""
    if importlib.util.find_spec("ziglang") is None:
        return None
    if target.is_bare:
        return None
    _, _, system = target.triple.partition("-")
    architecture = "arm" if target.architecture.startswith("arm") else target.architecture
    system = system.removeprefix("unknown-")
    return [sys.executable, "-m", "ziglang", "cc", "-target", f"{architecture}-{system}.{_GLIBC}"]


def gnu_compiler(target: Target) -> str:
    """Name of GNU's C compiler for `target`: ``gcc``, ``aarch64-linux-gnu-gcc`` ..."""
    if is_native(target):
        return "gcc"
    _, _, system = target.triple.partition("-")
    is_narrow = target.architecture.startswith(("arm", "thumb"))
    architecture = "arm" if is_narrow else target.architecture
    system = system.removesuffix("hf") if target.is_bare else system  # An option says so there.
    return f"{architecture}-{system.removeprefix('unknown-')}-gcc"


def gnu_options(target: Target) -> list[str]:
    """Options that name the very CPU to `gnu_compiler`, where its default is another."""
    if not target.architecture.startswith("thumb"):
        return []
    abi = target.tvm_target.attrs.get("mfloat-abi", "soft")
    fpu = _FPU.get(target.cpu, ()) if abi == "hard" else ()
    return [f"-mcpu={target.cpu}", "-mthumb", f"-mfloat-abi={abi}", *fpu]


def gnu_package(target: Target) -> str:
    """Debian's package of `gnu_compiler`."""
    name = gnu_compiler(target)
    return name if name == "gcc" else f"gcc-{name.removesuffix('-gcc').replace('_', '-')}"


def is_native(target: Target) -> bool:
    """Whether `target` has this machine's architecture."""
    return target.architecture == architecture_of(codegen.llvm_get_system_triple())


def shared_library_command(command: list[str], output: str, objects: list[str]) -> list[str]:
    """Return the command that links objects to a shared library."""
    return [*command, "-shared", "-fPIC", "-o", output, *objects]
