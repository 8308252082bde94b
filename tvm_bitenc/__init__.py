"""tvm-bitenc: a TVM compiler backend for networks with 1- to 8-bit weights and activations."""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "CompiledModel": "compiled",
    "Encoding": "encoding",
    "build": "compiler",
    "from_onnx": "frontend.onnx",
    "from_torch": "frontend.torch",
    "load": "compiled",
    "quantize": "frontend.ptq",
    "tune": "tuning.api",
}
__all__ = [*sorted(_PUBLIC), "__version__"]


def __getattr__(name: str):
    """Import on first use, so that `tvm_bitenc.nn` needs no TVM and `load` no torch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tvm_bitenc' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
