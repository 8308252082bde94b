"""Products that round on their own, on every CPU."""

from __future__ import annotations

import tvm_ffi
from tvm import tirx
from tvm.target import codegen


def rounded(value: tirx.Expr) -> tirx.Expr:
    """Keep a float as it rounds alone: neither TVM nor LLVM sees what it was computed from.

    ``a * b + c`` in one instruction rounds once, where the CPU has it; then the same network would
    round differently on two CPUs, and a code could differ by one. ``a + b - b`` would become ``a``.
    """
    fence = tirx.const(codegen.llvm_lookup_intrinsic_id("llvm.arithmetic.fence"), "uint32")
    if _is_rounded(value, fence):
        return value
    return tirx.call_llvm_pure_intrin(str(value.ty), fence, value)


def _is_rounded(value: tirx.Expr, fence: tirx.Expr) -> bool:
    is_intrinsic = getattr(getattr(value, "op", None), "name", "") == "tirx.call_llvm_pure_intrin"
    return is_intrinsic and tvm_ffi.structural_equal(value.args[0], fence)
