"""Float arithmetic that rounds the same on every CPU, as lowerings of Relax ops.

A fence around each elementwise product costs nothing but its contraction with a sum. Convolutions
and matrix products that stay in float have lowerings of their own, without fences.
"""

from __future__ import annotations

from tvm import relax, te, topi

from ..te.rounded import rounded


def _multiply(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    def compute(a, b) -> te.Tensor:
        product = topi.multiply(a, b)
        if str(product.dtype) != "float32":
            return product
        return te.compute(product.shape, lambda *i: rounded(product(*i)), name="multiply")

    return builder.call_te(compute, *call.args, primfunc_name_hint="multiply")


STRICT_LEGALIZATION = {"relax.multiply": _multiply}
