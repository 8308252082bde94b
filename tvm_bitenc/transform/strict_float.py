"""Float arithmetic that rounds the same on every CPU.

LLVM may contract ``a * b + c`` into one instruction that rounds once, where the CPU has it, so the
same network could round differently on two CPUs, and a code could differ by one. A fence around
each product keeps the two roundings. It costs nothing but the contraction itself: convolutions and
matrix products that stay in float have lowerings of their own, without fences.
"""

from __future__ import annotations

from tvm import relax, te, tirx
from tvm.target import codegen
from tvm.topi import multiply as topi_multiply


def rounded(value: tirx.PrimExpr) -> tirx.PrimExpr:
    """Keep a float32 product from being contracted with a sum."""
    fence = codegen.llvm_lookup_intrinsic_id("llvm.arithmetic.fence")
    return tirx.call_llvm_pure_intrin("float32", tirx.const(fence, "uint32"), value)


def _multiply(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    def compute(a, b) -> te.Tensor:
        product = topi_multiply(a, b)
        if str(product.dtype) != "float32":
            return product
        return te.compute(product.shape, lambda *i: rounded(product(*i)), name="multiply")

    return builder.call_te(compute, *call.args, primfunc_name_hint="multiply")


STRICT_LEGALIZATION = {"relax.multiply": _multiply}
