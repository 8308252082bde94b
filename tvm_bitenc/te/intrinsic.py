"""Calls of LLVM's intrinsics by name."""

from __future__ import annotations

from tvm import tirx
from tvm.target import codegen


def intrinsic(dtype: str, name: str, *arguments: tirx.Expr) -> tirx.Expr:
    """Call an LLVM intrinsic that has no effects but its result."""
    found = codegen.llvm_lookup_intrinsic_id(name)
    if not found:
        raise ValueError(f"this LLVM has no intrinsic {name}")
    return tirx.call_llvm_pure_intrin(dtype, tirx.const(found, "uint32"), *arguments)
