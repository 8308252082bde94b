"""Library files: a shared library with a description and a checksum at its end.

::

    shared library | description (JSON) | its length | SHA-256 of all before | b"BITENC01"

Loaders ignore what follows a shared library, so plain TVM loads the file too. The description is
read first: a truncated file, or one for another CPU, never reaches the dynamic loader.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..decode import Limits, Source
from ..errors import LibraryError
from .description import FORMAT_VERSION, Description

MAGIC = b"BITENC01"
MOST_BYTES = 1 << 32
_LENGTH = struct.Struct("<Q")
_TRAILER = _LENGTH.size + hashlib.sha256().digest_size + len(MAGIC)


def seal(path: Path, description: dict) -> None:
    """Append a description and the checksum of all before to a shared library."""
    append_sealed(path, json.dumps(description).encode())


def append_sealed(path: Path, encoded: bytes) -> None:
    """Append the bytes of a description, and the checksum of all before."""
    with path.open("r+b") as file:
        digest = hashlib.sha256(file.read())
        digest.update(encoded)
        file.write(encoded + _LENGTH.pack(len(encoded)) + digest.digest() + MAGIC)


def read_description(path: Path) -> Description:
    """Check a library file and return the description at its end, without loading any code.

    Raises
    ------
    LibraryError
        If the file is missing, truncated, altered, or of another format.
    """
    return read_sealed(path)[0]


def read_sealed(path: Path) -> tuple[Description, bytes]:
    """Description and bytes of a library; whatever happens to the file then, they are checked."""
    source = source_of(path)
    content = replace(source, limits=Limits(size=MOST_BYTES)).read(path)
    body, trailer = memoryview(content)[:-_TRAILER], content[-_TRAILER:]
    if not trailer.endswith(MAGIC) or len(trailer) < _TRAILER:
        raise source.fault("is truncated, or wasn't written by tvm-bitenc")
    (length,) = _LENGTH.unpack(trailer[: _LENGTH.size])
    if hashlib.sha256(body).digest() != trailer[_LENGTH.size : -len(MAGIC)] or length > len(body):
        raise source.fault("was altered since it was written")
    encoded = bytes(body[len(body) - length :])
    described = source.json(encoded, Any)
    version = described.get("format") if isinstance(described, dict) else None
    if version != FORMAT_VERSION and isinstance(version, int):
        raise LibraryError(
            str(path),
            f"has format {version}, and this version of tvm-bitenc reads format {FORMAT_VERSION}",
            "Export the model again",
        )
    return source.convert(described, Description), content


def source_of(path: Path) -> Source:
    """How faults of a library file are raised."""
    cure = "Copy it again, or export it again with this version of tvm-bitenc"
    return Source(str(path), cure, LibraryError)
