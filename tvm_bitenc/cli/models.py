"""Models that the command line reads, by the ending of their name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BitencError

if TYPE_CHECKING:
    import tvm


def read_model(path: Path, shapes: Sequence[str] = ()) -> tvm.IRModule:
    """Import an ``.onnx`` file, or a ``.pt2`` file of `torch.export.save`.

    Parameters
    ----------
    path : Path
    shapes : sequence of str
        Of dynamic inputs of an ONNX file, each as ``name=1,3,224,224``.

    Raises
    ------
    BitencError
        If there is no such file, or it can't be imported.
    """
    if not path.is_file():
        raise BitencError(str(path), "there is no such file", "Give the path of a model")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise BitencError(
            str(path), f"{path.suffix or 'no ending'} names no model", f"Use {', '.join(READERS)}"
        )
    return reader(path, dict(map(_shape, shapes)))


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.rpartition("=")
    try:
        return name, tuple(map(int, sizes.split(",")))
    except ValueError:
        raise BitencError(
            f"shape {text!r}", "isn't name=sizes", "Write it as x=1,3,224,224"
        ) from None


def _onnx(path: Path, shapes: dict) -> tvm.IRModule:
    from ..frontend.onnx import from_onnx

    return from_onnx(path, shapes or None)


def _torch(path: Path, shapes: dict) -> tvm.IRModule:
    from ..frontend.torch import from_torch, need_torch

    need_torch()
    if shapes:
        raise BitencError(
            str(path), "its shapes were fixed by torch.export", "Export it with other shapes"
        )
    from ..frontend.torch.files import load_program

    return from_torch(load_program(path))


READERS = {".onnx": _onnx, ".pt2": _torch}
