"""Exported programs in files, read without running code of the file's own."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ...errors import UnsupportedError

# Names, inside of the archive, of objects that only unpickling could bring back.
PICKLED = ("custom_obj", "opaque_obj")
ONLY_TENSORS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def load_program(path: Path) -> torch.export.ExportedProgram:
    """Read what `torch.export.save` wrote.

    Raises
    ------
    UnsupportedError
        If there is no such file, it isn't one of these, or it holds pickled objects.
    """
    # Their ops have to be known before.
    import torch.ao.quantization.fx._decomposed

    from ... import nn  # noqa: F401

    try:
        with zipfile.ZipFile(path) as archive:
            names = [Path(name).name for name in archive.namelist()]
        if any(name.startswith(PICKLED) for name in names):
            raise UnsupportedError(
                str(path), "holds pickled objects, which may run code", "Export tensors alone"
            )
        with _only_tensors():
            return torch.export.load(path)
    except UnsupportedError:
        raise
    except Exception as error:  # Of damage to the file, torch has no common class of errors.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UnsupportedError(
            str(path), f"isn't an exported program ({reason})", "Write it with torch.export.save"
        ) from None


@contextmanager
def _only_tensors() -> Iterator[None]:
    """Make torch.load refuse everything but tensors, whatever its caller asks for."""
    before = os.environ.get(ONLY_TENSORS)
    os.environ[ONLY_TENSORS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[ONLY_TENSORS]
        else:
            os.environ[ONLY_TENSORS] = before
