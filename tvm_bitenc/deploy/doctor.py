"""`doctor`: what is missing to compile for other machines, and on a device, with the cure."""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

import tvm

from ..errors import BitencError
from ..features import architecture_of, instructions
from ..host import missing_instructions
from ..target import Target, load_target, target_names
from .connection import Connection, within
from .library import is_same_series
from .linker import find_linker, gnu_compiler, gnu_package, is_native
from .machine import Machine, describe_machine, package_version
from .remote import remote_machine

_APT = "sudo apt-get install"


@dataclass(frozen=True)
class Check:
    """One thing that was looked for.

    Parameters
    ----------
    side : str
        ``"here"`` or ``"device"``.
    name : str
    is_ok : bool
    found : str
    used_for : str
    cure : str
        The command that mends it; empty where nothing is to mend.
    is_needed : bool
        Whether nothing works without it.
    """

    side: str
    name: str
    is_ok: bool
    found: str
    used_for: str
    cure: str = ""
    is_needed: bool = False


def doctor(connection: Connection | None = None) -> list[Check]:
    """Check this machine, and a device where a connection to its server is given."""
    checks = [*_core(), *_compilers(), *_extras()]
    return checks if connection is None else [*checks, *_device(connection)]


def _here(name: str, is_ok: bool, found: str, used_for: str, cure: str, **options) -> Check:
    return Check("here", name, is_ok, found, used_for, "" if is_ok else cure, **options)


def _core() -> Iterator[Check]:
    machine = describe_machine()
    found = f"{tvm.__version__} on Python {machine.python}"
    yield _here("TVM", True, found, "everything", "", is_needed=True)
    cpu = f"{machine.cpu} ({platform.machine()}), {machine.cores} cores"
    yield _here("CPU", True, cpu, "target 'native'", "", is_needed=True)
    yield _tool("make", "make", "building C bundles")


def _tool(name: str, package: str, used_for: str) -> Check:
    path = shutil.which(name)
    return _here(name, path is not None, path or "missing", used_for, f"{_APT} {package}")


def _compilers() -> Iterator[Check]:
    """A linker, a C library and an emulator for each kind of CPU that a shipped target is for."""
    kinds = {gnu_compiler(target): target for target in map(load_target, target_names())}
    for compiler, target in sorted(kinds.items(), key=lambda kind: not is_native(kind[1])):
        where = "this machine" if is_native(target) else target.architecture
        where = "microcontrollers" if target.is_bare else where
        package = f"{gnu_package(target)} {_c_library(target)}"
        if not target.is_bare:
            linker = find_linker(target)
            found = " ".join(linker or ["missing"])
            cure = f"{_APT} {package}" if is_native(target) else "pip install 'tvm-bitenc[cross]'"
            yield _here(f"linker for {where}", linker is not None, found, "export_library", cure)
        yield _tool(compiler, package, f"make in C bundles for {where}")
        if not is_native(target):
            system = "qemu-system-arm"
            emulator = system if target.is_bare else f"qemu-{compiler.split('-')[0]}"
            package = system if target.is_bare else "qemu-user"
            yield _tool(emulator, package, f"running {where} programs here")


def _c_library(target: Target) -> str:
    """Debian's package of the C library for a target."""
    if is_native(target):
        return "libc6-dev"
    if target.is_bare:
        return f"libnewlib-{gnu_compiler(target).removesuffix('-gcc')}"
    names = {"aarch64": "arm64", "x86_64": "amd64", "riscv64": "riscv64"}
    architecture = names.get(target.architecture, "armhf")
    return f"libc6-dev-{architecture}-cross"


def _extras() -> Iterator[Check]:
    """The optional packages, as the installed package names them itself."""
    try:
        requirements = metadata.requires("tvm-bitenc") or []
    except metadata.PackageNotFoundError:
        yield _here("tvm-bitenc", False, "not installed", "finding its extras", "pip install -e .")
        return
    packages: dict[str, list[str]] = {}
    for requirement in requirements:
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        if extra and name != "tvm-bitenc" and extra[1] not in ("dev", "all", "bench"):
            packages.setdefault(extra[1], []).append(name)
    for kind, names in packages.items():
        missing = [name for name in names if package_version(name) is None]
        found = f"missing: {', '.join(missing)}" if missing else ", ".join(names)
        cure = f"pip install 'tvm-bitenc[{kind}]'"
        yield _here(f"extra {kind}", not missing, found, _USES.get(kind, kind), cure)


_USES = {
    "cli": "bitenc",
    "torch": "from_torch, tvm_bitenc.nn",
    "onnx": "from_onnx",
    "ptq": "quantize",
    "tune": "tuning",
    "cross": "linking for other machines",
    "deploy": "bitenc deploy, bitenc serve",
    "report": "tutorials",
}


def _device(connection: Connection) -> list[Check]:
    """What the server at the other end says of its machine."""

    def ask() -> Machine:
        with connection.session() as session:
            return remote_machine(session)

    try:
        machine = within(connection.timeout, connection, ask)
    except BitencError as error:
        cause, cure = error.cause or str(error), error.cure
        return [Check("device", str(connection), False, cause, "bitenc deploy", cure, True)]
    reached = Check("device", str(connection), True, "answers", "bitenc deploy", "", True)
    return [reached, *_versions(machine), *_capabilities(machine)]


def _versions(machine: Machine) -> Iterator[Check]:
    if machine.tvm is None:
        found = "TVM's own server: no times by layer, no checks of CPU and version"
        yield Check("device", "server", False, found, "times by layer", "bitenc serve")
        return
    is_same = is_same_series(machine.tvm)
    cure = "" if is_same else f"pip install 'apache-tvm=={tvm.__version__}'"
    found = f"{machine.tvm} on Python {machine.python}"
    yield Check("device", "TVM", is_same, found, "running libraries", cure, True)
    version, here = machine.tvm_bitenc, package_version("tvm-bitenc")
    cure = "" if version == here else f"pip install 'tvm-bitenc=={here}'"
    found = str(version or "not installed")
    yield Check("device", "tvm-bitenc", version == here, found, "be.load", cure)


def _capabilities(machine: Machine) -> Iterator[Check]:
    triple, features = machine.triple, machine.features
    found = f"{machine.cpu or 'CPU unknown'} ({triple})"
    yield Check("device", "CPU", True, found, "choosing a target")
    if features is not None:
        found = (
            ", ".join(sorted(instructions(features, architecture_of(triple))))
            or "no vector instructions"
        )
        yield Check("device", "features", True, found, "choosing a target")
    fitting = [
        name
        for name in target_names()
        if name != "native" and _fits(load_target(name), triple, features)
    ]
    found = ", ".join(fitting) or "none that ships"
    cure = "" if fitting else "write a target file: see targets/README.md"
    yield Check("device", "targets", bool(fitting), found, "be.build(..., target=)", cure)
    if machine.free_bytes is not None:
        room = machine.free_bytes
        cure = "" if room > 2**24 else "make room on the device's disk"
        found = f"{room / 2**20:.0f} MiB free"
        yield Check("device", "disk", room > 2**24, found, "uploading libraries", cure)


def _fits(target: Target, triple: str, features: list[str] | None) -> bool:
    is_same = target.architecture == architecture_of(triple)
    return is_same and (features is None or not missing_instructions(target, features))
