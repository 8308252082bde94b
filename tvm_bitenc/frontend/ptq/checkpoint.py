"""Results of finished steps in a JSON file, so that an interrupted run goes on where it was."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from ...decode import Count, Document, Limits, Name, Share, Source
from ...errors import BitencError
from ...files import written_whole

Result = TypeVar("Result")

VERSION = 1
SAVE_EVERY = 2.0  # Seconds.
FILE = Limits(size=1 << 30)


class PackedArray(Document, frozen=True):
    """An array as `pack_array` writes it; its bytes are base64."""

    dtype: Literal["float32", "float64", "int32", "int64", "uint8", "int8"]
    shape: Annotated[tuple[Count, ...], Meta(max_length=32)]
    data: bytes


class KeptLayer(Document, frozen=True):
    """What is kept of a quantized layer."""

    error: Share = 0.0
    bias: PackedArray | UnsetType = UNSET
    codes: PackedArray | UnsetType = UNSET


class CheckpointFile(Document, frozen=True):
    """What a checkpoint's file holds: of each step a number, or what is kept of a layer."""

    version: int
    key: Name
    steps: dict[Name, float | KeptLayer]


class Checkpoint:
    """A dictionary of step results, kept in memory and, with a path, in a file.

    Parameters
    ----------
    path : path or None
    key : str
        Hash of all that the results depend on: model, data, settings.

    Raises
    ------
    BitencError
        If the file can't be read, isn't a checkpoint, or belongs to another key.
    """

    def __init__(self, path: str | Path | None, key: str):
        self.path, self.key = None if path is None else Path(path), key
        self.steps: dict[str, object] = {}
        self.saved_at = time.monotonic()
        if self.path is not None and self.path.exists():
            self.steps = self._load(self.path)

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_exception) -> None:
        self.save()

    def get(self, step: str, compute: Callable[[], Result], kind: type[Result]) -> Result:
        """Result of a step: from the file, or computed now; a `float` or a `dict` of plain values.

        Raises
        ------
        BitencError
            If the file has something else.
        """
        if step in self.steps:
            found = self.steps[step]
            if not isinstance(found, kind):
                raise BitencError(self._where, f"is damaged at {step!r}", "Delete it")
            return found
        result = compute()
        self.steps[step] = result
        if time.monotonic() - self.saved_at > SAVE_EVERY:
            self.save()
        return result

    def save(self) -> None:
        """Write the file, whole or not at all."""
        if self.path is None:
            return
        content = json.dumps({"version": VERSION, "key": self.key, "steps": self.steps})
        with written_whole(self.path) as temporary:
            temporary.write_text(content)
        self.saved_at = time.monotonic()

    def _load(self, path: Path) -> dict[str, object]:
        source = Source(self._where, "Delete it or give another path", limits=FILE)
        file = source.json(source.read(path), CheckpointFile)
        if (file.version, file.key) != (VERSION, self.key):
            raise source.fault("is of another model, other calibration data or other settings")
        return msgspec.to_builtins(file.steps)

    @property
    def _where(self) -> str:
        return f"checkpoint {str(self.path)!r}"


def hash_of(parts: Iterable[bytes | str | np.ndarray]) -> str:
    """Hash of texts, bytes and arrays, their shapes included."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            part = np.ascontiguousarray(part).tobytes()
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def pack_array(array: np.ndarray) -> dict:
    """Array as JSON holds it, bit for bit."""
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"dtype": str(array.dtype), "shape": list(array.shape), "data": data}


def unpack_array(packed: dict, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Inverse of `pack_array`; `BitencError` if it isn't an array of that dtype and shape."""
    source = Source("checkpoint", "Delete it and start again")
    array = source.convert(packed, PackedArray)
    expected = np.dtype(dtype).itemsize * math.prod(shape)
    if (array.dtype, array.shape, len(array.data)) != (dtype, tuple(shape), expected):
        raise source.fault(
            f"an array in it is damaged ({array.dtype} {array.shape} of {len(array.data)} bytes)"
        )
    return np.frombuffer(array.data, dtype).reshape(shape).copy()
