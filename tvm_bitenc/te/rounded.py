"""Products that round on their own, on every CPU."""

from __future__ import annotations

from tvm import tirx
from tvm.target import codegen


def rounded(product: tirx.Expr) -> tirx.Expr:
    """Keep LLVM from contracting a float32 product with a sum into one instruction.

    ``a * b + c`` in one instruction rounds once, where the CPU has it; then the same network would
    round differently on two CPUs, and a code could differ by one.
    """
    fence = codegen.llvm_lookup_intrinsic_id("llvm.arithmetic.fence")
    return tirx.call_llvm_pure_intrin("float32", tirx.const(fence, "uint32"), product)
