"""tvm-bitenc: a TVM compiler backend for networks with 1- to 8-bit weights and activations."""

from __future__ import annotations

import importlib

from .importing import without_collections

__version__ = "0.1.0"

_PUBLIC = {
    "CompiledModel": "compiled",
    "Encoding": "encoding",
    "build": "compiler",
    "from_onnx": "frontend.onnx",
    "from_torch": "frontend.torch",
    "load": "loaded",
    "quantize": "frontend.ptq",
    "tune": "tuning.api",
}
__all__ = [*sorted(_PUBLIC), "__version__"]


def __getattr__(name: str):
    """Import on first use, so that `tvm_bitenc.nn` needs no TVM and `load` no torch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tvm_bitenc' has no attribute {name!r}")
    try:
        with without_collections():
            module = importlib.import_module(f".{_PUBLIC[name]}", __name__)
    except ModuleNotFoundError as error:
        if not str(error.name).startswith(__name__):
            raise
        raise _missing(name) from None
    value = getattr(module, name)
    globals()[name] = value
    return value


def _missing(name: str) -> Exception:
    from .errors import BitencError

    cause = "isn't part of tvm-bitenc-runtime, which only runs what was compiled"
    return BitencError(f"tvm_bitenc.{name}", cause, "pip install tvm-bitenc")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
