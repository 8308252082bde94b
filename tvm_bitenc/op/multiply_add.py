"""`bitenc.multiply_add`: x * a + b in float32, rounded once, on every CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import relax, te, tirx

from ..te.intrinsic import intrinsic
from .registration import describe, make_call, register_op, tensor_shape


def multiply_add(x: relax.Expr, factor: relax.Expr, term: relax.Expr) -> relax.Call:
    """Return ``x * factor + term`` with a single rounding.

    Parameters
    ----------
    x : relax.Expr of float32
    factor, term : relax.Expr of float32
        Of the rank of `x`; axes of size 1 are repeated.
    """
    return make_call(multiply_add_op, [x, factor, term])


def fused_multiply_add(x: np.ndarray, factor: np.ndarray, term: np.ndarray) -> np.ndarray:
    """Return what the op computes, in numpy: float32.

    The product is exact in float64. Their sum is rounded there to odd, which keeps what the
    rounding to float32 needs to know, so that the two roundings give what one gives.
    """
    product = np.float64(x) * np.float64(factor)
    term = np.float64(term)
    total = np.atleast_1d(product + term)
    part = total - product
    lost = (product - (total - part)) + (term - part)  # Knuth's exact error of the sum.
    is_even = total.view(np.int64) & 1 == 0
    nudged = np.nextafter(total, np.where(lost > 0, np.inf, -np.inf))
    odd = np.where((lost != 0) & np.isfinite(total) & is_even, nudged, total)
    return odd.reshape(np.shape(product + term)).astype(np.float32)


def _infer_type(call: relax.Call) -> relax.TensorType:
    shape = tensor_shape(call.args[0], "float32", describe(call))
    for argument in call.args[1:]:
        tensor_shape(argument, "float32", describe(call))
    return relax.TensorType(shape, "float32")


def _legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    def compute(*tensors: te.Tensor) -> te.Tensor:
        def element(*index) -> tirx.Expr:
            values = (_broadcast(tensor, index) for tensor in tensors)
            return intrinsic("float32", "llvm.fma", *values)

        return te.compute(tensors[0].shape, element, name="multiply_add")

    return builder.call_te(compute, *call.args, primfunc_name_hint="bitenc_multiply_add")


def _broadcast(tensor: te.Tensor, index: Sequence[tirx.Expr]) -> tirx.Expr:
    return tensor(*(0 if _is_one(size) else i for i, size in zip(index, tensor.shape)))


def _is_one(size: int | tirx.Expr) -> bool:
    """Whether a size is the constant 1."""
    return isinstance(size, (int, tirx.IntImm)) and int(size) == 1


multiply_add_op = register_op(
    "bitenc.multiply_add", ("x", "factor", "term"), _infer_type, _legalize
)
