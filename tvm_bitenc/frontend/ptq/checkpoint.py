"""Results of finished steps in a JSON file, so that an interrupted run goes on where it was."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ...errors import BitencError
from ...files import written_whole

VERSION = 1
SAVE_EVERY = 2.0  # Seconds.


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
            self.steps = self._load()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_exception) -> None:
        self.save()

    def get(self, step: str, compute: Callable[[], object], kind: type):
        """Result of a step: from the file, or computed now; a `float` or a `dict` of plain values.

        Raises
        ------
        BitencError
            If the file has something else.
        """
        if not isinstance(self.steps.get(step, kind()), kind):
            raise BitencError(
                f"checkpoint {str(self.path)!r}", f"is damaged at {step!r}", "Delete it"
            )
        if step not in self.steps:
            self.steps[step] = compute()
            if time.monotonic() - self.saved_at > SAVE_EVERY:
                self.save()
        return self.steps[step]

    def save(self) -> None:
        """Write the file, whole or not at all."""
        if self.path is None:
            return
        content = json.dumps({"version": VERSION, "key": self.key, "steps": self.steps})
        with written_whole(self.path) as temporary:
            temporary.write_text(content)
        self.saved_at = time.monotonic()

    def _load(self) -> dict[str, object]:
        where = f"checkpoint {str(self.path)!r}"
        try:
            content = json.loads(self.path.read_text())
            version, key, steps = (content[name] for name in ("version", "key", "steps"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BitencError(
                where, f"can't be read ({error})", "Delete it or give another path"
            ) from None
        if version != VERSION or key != self.key or not isinstance(steps, dict):
            raise BitencError(
                where,
                "is of another model, other calibration data or other settings",
                "Delete it or give another path",
            )
        return steps


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
    try:
        if packed["dtype"] != dtype or tuple(packed["shape"]) != tuple(shape):
            raise ValueError(f"{packed['dtype']} {packed['shape']}")
        return np.frombuffer(base64.b64decode(packed["data"]), dtype).reshape(shape).copy()
    except (KeyError, TypeError, ValueError) as error:
        raise BitencError(
            "checkpoint", f"an array in it is damaged ({error})", "Delete it and start again"
        ) from None
