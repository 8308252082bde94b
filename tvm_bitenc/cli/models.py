"""Models that the command line reads, by the ending of their name."""

from __future__ import annotations

from pathlib import Path

import tvm

from ..errors import BitencError


def read_model(path: Path) -> tvm.IRModule:
    """Import an ``.onnx`` file, or a ``.pt2`` file of `torch.export.save`.

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
    return reader(path)


def _onnx(path: Path) -> tvm.IRModule:
    import tvm_bitenc

    if not hasattr(tvm_bitenc, "from_onnx"):
        raise BitencError(str(path), "ONNX isn't imported yet", "Use a .pt2 file")
    return tvm_bitenc.from_onnx(path)


def _torch(path: Path) -> tvm.IRModule:
    from ..frontend.torch import from_torch, need_torch

    need_torch()
    from ..frontend.torch.files import load_program

    return from_torch(load_program(path))


READERS = {".onnx": _onnx, ".pt2": _torch}
