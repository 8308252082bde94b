"""Writing library files; `sealed` has their format.

A network that is one function is linked with its weights and with threads for its loops, and beside
it for plain TVM a virtual machine's program that calls it. Any other is TVM's program alone.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import tvm
import tvm_ffi

from ..entry.code import CompiledNetwork
from ..entry.for_tvm import build_for_tvm, virtual_machine_module
from ..errors import LibraryError
from ..features import instructions
from ..files import scratch_folder, written_whole
from ..program import CompiledProgram
from ..runtime.size import ALIGNMENT
from ..tvm_options import SealedTvmOptions
from .bundle.source import render
from .description import FORMAT_VERSION
from .linker import find_linker, gnu_compiler, gnu_package, shared_library_command
from .sealed import read_description, seal, source_of

_STANDARD_ERROR = threading.Lock()
_SCOPE_WARNING = re.compile(rb"Warning: Scope (Saving|Loaded):")
_SERIAL = "its parallel loops run in one thread, for its linker has no OpenMP"


def write_library(program: CompiledProgram, path: Path, cc: str | None = None) -> Path:
    """Write a compiled model; see `CompiledModel.export_library`."""
    if program.scheduled is None:
        raise LibraryError(
            str(path), "the model was itself loaded from a library", "Copy that file instead"
        )
    if program.target.is_bare:
        raise LibraryError(
            str(path),
            f"target {program.target.name!r} has no operating system that loads libraries",
            "Use export_c",
        )
    command = find_linker(program.target, cc)
    if command is None:
        _write_objects(program, path)
    linker = _Linker(command, is_parallel=program.target.threads != 1)
    with written_whole(path, LibraryError) as temporary:
        try:
            _export(program, temporary, linker.link)
        except RuntimeError as error:
            raise LibraryError(
                str(path),
                f"linking failed ({str(error).strip()[-300:]})",
                f"Check that {shlex.join(command)} makes programs for {program.target.triple}",
            ) from None
        seal(temporary, _description(program, linker.is_parallel))
    return path


def _export(program: CompiledProgram, path: Path, link: Callable[..., None]) -> None:
    """Make objects and sources of a library, and have them linked."""
    executable, files = program.executable, list[str]()
    with tempfile.TemporaryDirectory(dir=path.parent.resolve()) as folder:
        if program.network is not None:
            files = _network_files(program.network, Path(folder))
            is_tuple = program.returns_tuple
            module = virtual_machine_module(program.network, program.inputs, is_tuple)
            executable = build_for_tvm(module, program.target)
        assert executable is not None  # What isn't one function has one.

        def link_all(output: str, objects: list[str], **_options) -> None:
            link(output, [*objects, *files], folder)

        with _without_scope_warnings():
            executable.export_library(str(path), fcompile=link_all, workspace_dir=folder)


def _network_files(network: CompiledNetwork, folder: Path) -> list[str]:
    network.module.write_to_file(str(folder / "network.o"))
    (folder / "bitenc_weights.bin").write_bytes(network.plan.weights or bytes(ALIGNMENT))
    sources = {
        "bitenc_weights.S": render("net_weights.S.in", net="bitenc", alignment=ALIGNMENT),
        "bitenc_runtime.h": render("bitenc_runtime.h"),
        "bitenc_runtime.c": render("bitenc_runtime.c"),
        "library.c": render("library.c"),
    }
    for name, text in sources.items():
        (folder / name).write_text(text, encoding="utf-8")
    names = ["network.o", *(name for name in sources if not name.endswith(".h"))]
    return [str(folder / name) for name in names]


class _Linker:
    """A C compiler as a linker, with OpenMP if it has it and loops run in parallel."""

    def __init__(self, command: list[str], is_parallel: bool):
        self.command, self.is_parallel = command, is_parallel

    def link(self, output: str, files: list[str], folder: str) -> None:
        if self.is_parallel and not self._run(output, ["-fopenmp", *files], folder):
            return
        self.is_parallel = False
        error = self._run(output, files, folder)
        if error:
            raise RuntimeError(error)

    def _run(self, output: str, files: list[str], folder: str) -> str:
        """Link, and return what was said if it failed."""
        done = subprocess.run(
            shared_library_command(self.command, os.path.abspath(output), files),
            capture_output=True,
            text=True,
            cwd=folder,  # Where the assembler finds the weights.
            env={**os.environ, "TMPDIR": folder},
        )
        return done.stderr or "it failed" if done.returncode else ""


def _write_objects(program: CompiledProgram, path: Path) -> NoReturn:
    """Leave objects for a linker elsewhere; the error has the commands."""
    names: list[str] = []

    def keep(_output: str, files: list[str], folder: str) -> None:
        included = ("bitenc_weights.bin", "bitenc_runtime.h")  # By sources, under these names.
        beside = [str(Path(folder) / name) for name in included if (Path(folder) / name).exists()]
        for file in [*files, *beside]:
            own = Path(file).name
            name = path.with_name(own) if own in included else path.with_suffix(f".{own}")
            names.append(str(name))
            with written_whole(name, LibraryError) as temporary:
                shutil.copy(file, temporary)

    with scratch_folder(path.parent, path.name, LibraryError) as folder:
        _export(program, folder / path.name, keep)
    description = path.with_suffix(".json")
    with written_whole(description, LibraryError) as temporary:
        temporary.write_text(json.dumps(_description(program, False)), encoding="utf-8")
    linked = [name for name in names if not name.endswith((".bin", ".h"))]
    compiler = [gnu_compiler(program.target), f"-I{path.parent}"]
    link = shlex.join(shared_library_command(compiler, str(path), linked))
    seal_it = shlex.join(["python", "-m", "tvm_bitenc.deploy.seal", str(path), str(description)])
    raise LibraryError(
        str(path),
        f"there is no linker for {program.target.triple}; wrote {', '.join(names)}",
        f"Link it elsewhere with `{link} && {seal_it}`; or pip install 'tvm-bitenc[cross]', or "
        f"apt-get install {gnu_package(program.target)}, and export again",
    )


def _description(program: CompiledProgram, is_parallel: bool) -> dict:
    target, report = program.target, program.report
    if program.network is not None and target.threads != 1 and not is_parallel:
        report = {**report, "notes": [*report["notes"], _SERIAL]}
    return {
        "format": FORMAT_VERSION,
        "tvm": tvm.__version__,
        "target": {
            "name": target.name,
            "architecture": target.architecture,
            "instructions": sorted(instructions(target.features, target.architecture)),
            "tvm": SealedTvmOptions.of(target.tvm_target),
            "threads": target.threads,
            "accelerator": target.accelerator and asdict(target.accelerator),
            "simulator": target.simulator,
        },
        "inputs": [asdict(spec) for spec in program.inputs],
        "outputs": [asdict(spec) for spec in program.outputs],
        "largest_batch": program.largest_batch,
        "network": program.network and asdict(program.network.interface),
        "report": report,
    }


def read_library(path: Path) -> CompiledProgram:
    """Check a library file and return what it says of itself, without loading any code.

    Raises
    ------
    LibraryError
        If the file is missing, truncated, altered, of another format, or of another TVM.
    """
    description = read_description(path)
    check_series(path, description.tvm)
    target = description.target.target(source_of(path))
    return CompiledProgram(
        lambda: target,
        description.inputs,
        description.outputs,
        description.report,
        description.largest_batch,
    )


def check_series(path: Path, version: str) -> None:
    """Raise `LibraryError` if a library is of another series of TVM than this one."""
    if not is_same_series(version):
        raise LibraryError(
            str(path),
            f"was compiled with TVM {version}, and this one is {tvm.__version__}",
            "Export it again with this TVM",
        )


def is_same_series(version: str) -> bool:
    """Whether a version of TVM runs this one's libraries: 0.27.1 does those of 0.27.0."""
    return version.split(".")[:2] == tvm.__version__.split(".")[:2]


def load_module(content: bytes) -> tvm.runtime.Module:
    """Load the code of a checked file for TVM's virtual machine.

    The dynamic loader knows libraries by path: for a path that was written again since, it would
    return the old one. A copy has a path of its own, and is what was checked.
    """
    with scratch_folder(Path(tempfile.gettempdir()), "bitenc-load") as folder:
        copy = folder / "model.so"
        copy.write_bytes(content)
        with _without_scope_warnings():
            # TVM's own `load_module` would keep the code mapped until the process ends.
            return tvm_ffi.load_module(str(copy), keep_module_alive=False)


@contextmanager
def _without_scope_warnings() -> Iterator[None]:
    """Drop the warning of TVM 0.27 for every constant it saves or loads; keep all others."""
    # Standard error is the process's: two threads that put it aside would lose it.
    with _STANDARD_ERROR, tempfile.TemporaryFile() as captured:
        sys.stderr.flush()
        standard_error = os.dup(2)
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
            captured.seek(0)
            kept = [line for line in captured if not _SCOPE_WARNING.search(line)]
            os.write(2, b"".join(kept))
