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

from ..accelerator import Accelerator
from ..batch import TensorSpec
from ..errors import LibraryError, TargetError
from ..files import scratch_folder, written_whole
from ..host import check_runs_here
from ..program import CompiledProgram
from ..target import Target
from .linker import find_linker, gnu_compiler, gnu_package, shared_library_command

MAGIC = b"BITENC01"
FORMAT_VERSION = 1
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
            "tvm": json.loads(_target_json(program.target)),
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
    with path.open("r+b") as file:
        digest = hashlib.sha256(file.read())
        encoded = json.dumps(description).encode()
        digest.update(encoded)
        file.write(encoded + _LENGTH.pack(len(encoded)) + digest.digest() + MAGIC)


def _target_json(target: Target) -> str:
    return json.dumps(dict(target.tvm_target.export()), default=_plain)


def _plain(value):
    return list(value) if hasattr(value, "__iter__") else str(value)


def load_program(path: Path) -> CompiledProgram:
    """Load a library; see `tvm_bitenc.load`.

    Raises
    ------
    LibraryError
        If the file is missing, truncated, altered, of another format, or of another TVM.
    TargetError
        If it was compiled for another CPU than this one.
    """
    library = read_library(path)
    try:
        check_runs_here(library.target)
    except TargetError as error:
        raise TargetError(str(path), error.cause, "Compile the model for this machine") from None
    return replace(library, executable=_load_module(path))


def read_library(path: Path) -> CompiledProgram:
    """Check a library file and return what it says of itself, without loading any code.

    Raises
    ------
    LibraryError
        As `load`.
    """
    description = read_description(path)
    try:
        version, target = description["tvm"], description["target"]
        inputs, outputs = (
            [TensorSpec(spec["name"], tuple(spec["shape"]), spec["dtype"]) for spec in specs]
            for specs in (description["inputs"], description["outputs"])
        )
        report, batch = description["report"], description.get("largest_batch")
        library = CompiledProgram(None, _target_of(target), inputs, outputs, report, batch)
    except (KeyError, TypeError) as error:
        raise LibraryError(str(path), f"its description lacks {error}", "Export it again") from None
    if not is_same_series(version):
        raise LibraryError(
            str(path),
            f"was compiled with TVM {version}, and this one is {tvm.__version__}",
            "Export it again with this TVM",
        )
    return library


def is_same_series(version: str) -> bool:
    """Whether a version of TVM runs this one's libraries: 0.27.1 does those of 0.27.0."""
    return version.split(".")[:2] == tvm.__version__.split(".")[:2]


def _target_of(description: dict) -> Target:
    target = Target(
        description["name"],
        tvm.target.Target(description["tvm"]),
        threads=description["threads"],
    )
    if not description.get("accelerator"):
        return target
    accelerator = Accelerator(**description["accelerator"])
    return replace(target, accelerator=accelerator, simulator=description["simulator"])


def _load_module(path: Path) -> tvm.runtime.Module:
    """Load the code of a checked file.

    The dynamic loader knows libraries by path: for a path that was written again since, it would
    return the old one. A copy has a path of its own.
    """
    with scratch_folder(Path(tempfile.gettempdir()), "bitenc-load") as folder:
        copy = shutil.copy(path, folder / "model.so")
        with _without_scope_warnings():
            # TVM's own `load_module` would keep the code mapped until the process ends.
            return tvm_ffi.load_module(copy, keep_module_alive=False)


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


def read_description(path: Path) -> dict:
    """Check a library file and return the description at its end, without loading any code.

    Raises
    ------
    LibraryError
        If the file is missing, truncated, altered, or of another format.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LibraryError(
            str(path), f"can't be read ({error.strerror})", "Check the path"
        ) from None
    body, trailer = content[:-_TRAILER], content[-_TRAILER:]
    if not trailer.endswith(MAGIC) or len(trailer) < _TRAILER:
        raise LibraryError(
            str(path),
            "is truncated, or wasn't written by tvm-bitenc",
            "Copy or export it again",
        )
    (length,) = _LENGTH.unpack(trailer[: _LENGTH.size])
    if hashlib.sha256(body).digest() != trailer[_LENGTH.size : -len(MAGIC)] or length > len(body):
        raise LibraryError(str(path), "was altered since it was written", "Copy or export it again")
    description = json.loads(body[len(body) - length :])
    if description.get("format") != FORMAT_VERSION:
        raise LibraryError(
            str(path),
            f"has format {description.get('format')}, this version reads {FORMAT_VERSION}",
            "Export it again with this version of tvm-bitenc",
        )
    return description
