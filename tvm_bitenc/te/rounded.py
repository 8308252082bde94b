"""Products that round on their own, on every CPU."""

from __future__ import annotations

from tvm import tirx
from tvm.target import codegen


def rounded(value: tirx.Expr) -> tirx.Expr:
    """Keep a float as it rounds alone: neither TVM nor LLVM sees what it was computed from.

    ``a * b + c`` in one instruction rounds once, where the CPU has it; then the same network would
    round differently on two CPUs, and a code could differ by one. ``a + b - b`` would become ``a``.
    """
    fence = codegen.llvm_lookup_intrinsic_id("llvm.arithmetic.fence")
    return tirx.call_llvm_pure_intrin(str(value.ty), tirx.const(fence, "uint32"), value)
