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
import shutil
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import tvm
from tvm.support import cc

from ..batch import TensorSpec
from ..compiled import CompiledModel, check_runs_here
from ..errors import LibraryError, TargetError
from ..report import Report
from ..target import Target
from ..vta.config import Accelerator
from ..vta.model import model_kind

MAGIC = b"BITENC01"
FORMAT_VERSION = 1
_SCOPE_WARNING = re.compile(rb"Warning: Scope (Saving|Loaded):")
_LENGTH = struct.Struct("<Q")
_TRAILER = _LENGTH.size + hashlib.sha256().digest_size + len(MAGIC)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; it becomes `path` only on success."""
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent
        )
    except OSError as error:
        raise LibraryError(
            str(path), f"can't be written ({error.strerror})", "Use another folder"
        ) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        try:
            temporary.replace(path)
        except OSError as error:
            raise LibraryError(
                str(path), f"can't be written ({error.strerror})", "Use another name"
            ) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_library(model: CompiledModel, path: Path) -> Path:
    """Write a compiled model; see `CompiledModel.export_library`."""
    if isinstance(model.executable, tvm.runtime.Module):
        raise LibraryError(
            str(path), "the model was itself loaded from a library", "Copy that file instead"
        )
    description = {
        "format": FORMAT_VERSION,
        "tvm": tvm.__version__,
        "target": {
            "name": model.target.name,
            "tvm": json.loads(_target_json(model.target)),
            "threads": model.target.threads,
            "accelerator": model.target.accelerator and asdict(model.target.accelerator),
            "simulator": model.target.simulator,
        },
        "inputs": [asdict(spec) for spec in model.inputs],
        "outputs": [asdict(spec) for spec in model.outputs],
        "largest_batch": model.largest_batch,
        "report": model.report().to_dict(),
    }
    with written_whole(path) as temporary:
        try:
            with _without_scope_warnings():
                model.executable.export_library(str(temporary), fcompile=_linker(model.target))
        except RuntimeError as error:
            raise LibraryError(
                str(path), f"linking failed ({str(error).strip()[-300:]})", "Install gcc"
            ) from None
        seal(temporary, description)
    return path


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


def _linker(target: Target):
    """Return a linker for the target's architecture, as TVM's `fcompile`."""
    host = tvm.target.codegen.llvm_get_system_triple().split("-")[0]
    name = "gcc" if target.architecture == host else f"{target.architecture}-linux-gnu-gcc"
    found = shutil.which(name)
    if found is None:
        package = "gcc"
        if target.architecture != host:
            package = f"gcc-{target.architecture.replace('_', '-')}-linux-gnu"
        raise LibraryError(
            f"linker {name}", "isn't installed", f"Install it (Debian: apt-get install {package})"
        )
    return cc.cross_compiler(found)


def load(path: str | Path) -> CompiledModel:
    """Load a library written by `CompiledModel.export_library`.

    Parameters
    ----------
    path : path of the file

    Raises
    ------
    LibraryError
        If the file is missing, truncated, altered, or of another format.
    TargetError
        If it was compiled for another CPU than this one.
    """
    path = Path(path)
    description = read_description(path)
    try:
        target = Target(
            description["target"]["name"],
            tvm.target.Target(description["target"]["tvm"]),
            threads=description["target"]["threads"],
            **_accelerator(description["target"]),
        )
        inputs, outputs = (
            [TensorSpec(spec["name"], tuple(spec["shape"]), spec["dtype"]) for spec in specs]
            for specs in (description["inputs"], description["outputs"])
        )
        report = Report.from_dict(description["report"])
    except (KeyError, TypeError) as error:
        raise LibraryError(str(path), f"its description lacks {error}", "Export it again") from None
    try:
        check_runs_here(target)
    except TargetError as error:
        raise TargetError(str(path), error.cause, "Compile the model for this machine") from None
    largest_batch = description.get("largest_batch")
    return model_kind(target)(_load_module(path), target, inputs, outputs, report, largest_batch)


def _accelerator(description: dict) -> dict:
    """Fields of a target with an accelerator; none in libraries without one."""
    if not description.get("accelerator"):
        return {}
    accelerator = Accelerator(**description["accelerator"])
    return dict(accelerator=accelerator, simulator=description["simulator"])


def _load_module(path: Path) -> tvm.runtime.Module:
    """Load the code of a checked file.

    The dynamic loader knows libraries by path: for a path that was written again since, it would
    return the old one. A copy has a path of its own.
    """
    with tempfile.TemporaryDirectory() as folder, _without_scope_warnings():
        return tvm.runtime.load_module(shutil.copy(path, Path(folder) / path.name))


@contextmanager
def _without_scope_warnings() -> Iterator[None]:
    """Drop the warning of TVM 0.27 for every constant it saves or loads; keep all others."""
    with tempfile.TemporaryFile() as captured:
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
