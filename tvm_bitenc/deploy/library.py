"""Library files: a shared library with a description and a checksum at its end.

::

    shared library | description (JSON) | its length | SHA-256 of all before | b"BITENC01"

Loaders ignore what follows a shared library, so plain TVM loads the file too. `load` reads the
description first: a truncated file, or one for another CPU, never reaches the dynamic loader.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import NoReturn

import tvm
import tvm_ffi
from tvm import relax

from ..decode import Limits, Source
from ..errors import LibraryError, TargetError
from ..files import scratch_folder, written_whole
from ..host import check_runs_here
from ..program import CompiledProgram
from ..tvm_target import SealedTvmOptions
from .description import FORMAT_VERSION, Description
from .linker import find_linker, gnu_compiler, gnu_package, shared_library_command

MAGIC = b"BITENC01"
MOST_BYTES = 1 << 32
_STANDARD_ERROR = threading.Lock()
_SCOPE_WARNING = re.compile(rb"Warning: Scope (Saving|Loaded):")
_LENGTH = struct.Struct("<Q")
_TRAILER = _LENGTH.size + hashlib.sha256().digest_size + len(MAGIC)


def write_library(program: CompiledProgram, path: Path, cc: str | None = None) -> Path:
    """Write a compiled model; see `CompiledModel.export_library`."""
    if program.executable is None or isinstance(program.executable, tvm.runtime.Module):
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
    with written_whole(path, LibraryError) as temporary:
        try:
            _export(program, temporary, _linked_by(command))
        except RuntimeError as error:
            raise LibraryError(
                str(path),
                f"linking failed ({str(error).strip()[-300:]})",
                f"Check that {shlex.join(command)} makes programs for {program.target.triple}",
            ) from None
        seal(temporary, _description(program))
    return path


def _export(program: CompiledProgram, path: Path, link: Callable[..., None]) -> None:
    executable: relax.VMExecutable = program.executable
    with _without_scope_warnings():
        executable.export_library(str(path), fcompile=link, workspace_dir=str(path.parent))


def _linked_by(command: list[str]) -> Callable[..., None]:
    """Return a linker as TVM's `fcompile`."""

    def link(output: str, objects: list[str], **_options) -> None:
        done = subprocess.run(
            shared_library_command(command, output, objects),
            capture_output=True,
            text=True,
            env={**os.environ, "TMPDIR": str(Path(output).parent)},
        )
        if done.returncode:
            raise RuntimeError(done.stderr)

    return link


def _write_objects(program: CompiledProgram, path: Path) -> NoReturn:
    """Leave objects for a linker elsewhere; the error has the commands."""
    names: list[str] = []

    def keep(_output: str, objects: list[str], **_options) -> None:
        for file in objects:
            names.append(str(path.with_suffix(f".{Path(file).name}")))
            with written_whole(Path(names[-1]), LibraryError) as temporary:
                shutil.copy(file, temporary)

    with scratch_folder(path.parent, path.name, LibraryError) as folder:
        _export(program, folder / path.name, keep)
    description = path.with_suffix(".json")
    with written_whole(description, LibraryError) as temporary:
        temporary.write_text(json.dumps(_description(program)), encoding="utf-8")
    compiler = gnu_compiler(program.target)
    link = shlex.join(shared_library_command([compiler], str(path), names))
    seal_it = shlex.join(["python", "-m", "tvm_bitenc.deploy.seal", str(path), str(description)])
    raise LibraryError(
        str(path),
        f"there is no linker for {program.target.triple}; wrote {', '.join(names)}",
        f"Link it elsewhere with `{link} && {seal_it}`; or pip install 'tvm-bitenc[cross]', or "
        f"apt-get install {gnu_package(program.target)}, and export again",
    )


def _description(program: CompiledProgram) -> dict:
    return {
        "format": FORMAT_VERSION,
        "tvm": tvm.__version__,
        "target": {
            "name": program.target.name,
            "tvm": SealedTvmOptions.of(program.target.tvm_target),
            "threads": program.target.threads,
            "accelerator": program.target.accelerator and asdict(program.target.accelerator),
            "simulator": program.target.simulator,
        },
        "inputs": [asdict(spec) for spec in program.inputs],
        "outputs": [asdict(spec) for spec in program.outputs],
        "largest_batch": program.largest_batch,
        "report": program.report,
    }


def seal(path: Path, description: dict) -> None:
    """Append a description and the checksum of all before to a shared library."""
    append_sealed(path, json.dumps(description).encode())


def append_sealed(path: Path, encoded: bytes) -> None:
    """Append the bytes of a description, and the checksum of all before."""
    with path.open("r+b") as file:
        digest = hashlib.sha256(file.read())
        digest.update(encoded)
        file.write(encoded + _LENGTH.pack(len(encoded)) + digest.digest() + MAGIC)


def load_program(path: Path) -> CompiledProgram:
    """Load a library; see `tvm_bitenc.load`.

    Raises
    ------
    LibraryError
        If the file is missing, truncated, altered, of another format, or of another TVM.
    TargetError
        If it was compiled for another CPU than this one.
    """
    description, content = _checked(path)
    library = _program_of(description, path)
    try:
        check_runs_here(library.target)
    except TargetError as error:
        raise TargetError(str(path), error.cause, "Compile the model for this machine") from None
    return replace(library, executable=_load_module(content))


def read_library(path: Path) -> CompiledProgram:
    """Check a library file and return what it says of itself, without loading any code.

    Raises
    ------
    LibraryError
        As `load`.
    """
    return _program_of(read_description(path), path)


def _program_of(description: Description, path: Path) -> CompiledProgram:
    version = description.tvm
    if not is_same_series(version):
        raise LibraryError(
            str(path),
            f"was compiled with TVM {version}, and this one is {tvm.__version__}",
            "Export it again with this TVM",
        )
    return CompiledProgram(
        None,
        description.target.target(_source(path)),
        description.inputs,
        description.outputs,
        description.report,
        description.largest_batch,
    )


def is_same_series(version: str) -> bool:
    """Whether a version of TVM runs this one's libraries: 0.27.1 does those of 0.27.0."""
    return version.split(".")[:2] == tvm.__version__.split(".")[:2]


def _load_module(content: bytes) -> tvm.runtime.Module:
    """Load the code of a checked file.

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


def read_description(path: Path) -> Description:
    """Check a library file and return the description at its end, without loading any code.

    Raises
    ------
    LibraryError
        If the file is missing, truncated, altered, or of another format.
    """
    return _checked(path)[0]


def _checked(path: Path) -> tuple[Description, bytes]:
    """Description and bytes of a library; whatever happens to the file then, they are checked."""
    source = _source(path)
    content = replace(source, limits=Limits(size=MOST_BYTES)).read(path)
    body, trailer = memoryview(content)[:-_TRAILER], content[-_TRAILER:]
    if not trailer.endswith(MAGIC) or len(trailer) < _TRAILER:
        raise source.fault("is truncated, or wasn't written by tvm-bitenc")
    (length,) = _LENGTH.unpack(trailer[: _LENGTH.size])
    if hashlib.sha256(body).digest() != trailer[_LENGTH.size : -len(MAGIC)] or length > len(body):
        raise source.fault("was altered since it was written")
    return source.json(bytes(body[len(body) - length :]), Description), content


def _source(path: Path) -> Source:
    cure = "Copy it again, or export it again with this version of tvm-bitenc"
    return Source(str(path), cure, LibraryError)
