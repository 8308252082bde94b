"""Float arithmetic that rounds the same on every CPU, as lowerings of Relax ops.

A fence around each elementwise product costs nothing but its contraction with a sum. Convolutions
and matrix products that stay in float have lowerings of their own, without fences.
"""

from __future__ import annotations

from tvm import relax, te, tirx, topi

from ..te.rounded import rounded


def _multiply(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    def compute(a, b) -> te.Tensor:
        product = topi.multiply(a, b)
        if str(product.dtype) != "float32":
            return product
        return te.compute(product.shape, lambda *i: rounded(product(*i)), name="multiply")

    return builder.call_te(compute, *call.args, primfunc_name_hint="multiply")


def _leaky_relu(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    slope = tirx.const(call.attrs.alpha, "float32")

    def compute(x) -> te.Tensor:
        return te.compute(x.shape, lambda *i: _sloped(x(*i), slope), name="leaky_relu")

    return builder.call_te(compute, *call.args, primfunc_name_hint="leaky_relu")


def _prelu(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    axis, is_one = int(call.attrs.axis), int(call.args[1].ty.shape[0]) == 1

    def compute(x, slope) -> te.Tensor:
        def element(*index):
            return _sloped(x(*index), slope[0 if is_one else index[axis]])

        return te.compute(x.shape, element, name="prelu")

    return builder.call_te(compute, *call.args, primfunc_name_hint="prelu")


def _sloped(value, slope) -> tirx.PrimExpr:
    return tirx.Select(value > 0, value, rounded(value * slope))


STRICT_LEGALIZATION = {
    "relax.multiply": _multiply,
    "relax.nn.leakyrelu": _leaky_relu,
    "relax.nn.prelu": _prelu,
}
