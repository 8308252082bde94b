"""Float arithmetic that is the same on every CPU and keeps NaN, as lowerings of Relax ops.

A fence around each elementwise product costs nothing but its contraction with a sum. Convolutions
and matrix products that stay in float have lowerings of their own, without fences. TVM's own
limits (relu, clip, maximum, minimum) turn NaN into the limit, which numpy and torch don't. Copies
are lowered here too, for TVM's own loops come out wrong of LLVM on some CPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from tvm import relax, te, tirx, topi

from ..op.registration import constant_value
from ..te.limited import at_least, at_most
from ..te.rounded import rounded


def _multiply(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    def compute(a: te.Tensor, b: te.Tensor) -> te.Tensor:
        product = topi.multiply(a, b)
        if str(product.dtype) != "float32":
            return product
        return te.compute(product.shape, lambda *i: rounded(product(*i)), name="multiply")

    return builder.call_te(compute, *call.args, primfunc_name_hint="multiply")


def _leaky_relu(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    slope = tirx.const(call.attrs.alpha, "float32")

    def compute(x: te.Tensor) -> te.Tensor:
        return te.compute(x.shape, lambda *i: _sloped(x(*i), slope), name="leaky_relu")

    return builder.call_te(compute, *call.args, primfunc_name_hint="leaky_relu")


def _prelu(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    axis, is_one = int(call.attrs.axis), int(call.args[1].ty.shape[0]) == 1

    def compute(x: te.Tensor, slope: te.Tensor) -> te.Tensor:
        def element(*index):
            return _sloped(x(*index), slope[0 if is_one else index[axis]])

        return te.compute(x.shape, element, name="prelu")

    return builder.call_te(compute, *call.args, primfunc_name_hint="prelu")


def _sloped(value: tirx.Expr, slope: tirx.Expr) -> tirx.Expr:
    return tirx.Select(value > 0, value, rounded(value * slope))


def _relu(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    def compute(x: te.Tensor) -> te.Tensor:
        zero = tirx.const(0, str(x.dtype))
        return te.compute(x.shape, lambda *i: at_least(x(*i), zero), name="relu")

    return builder.call_te(compute, *call.args, primfunc_name_hint="relu")


def _clip(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    x, *limits = call.args
    dtype = str(x.ty.dtype)
    low, high = (tirx.const(limit.value, dtype) for limit in limits)
    has_numbers = not any(np.isnan(limit.value) for limit in limits)

    def compute(x: te.Tensor) -> te.Tensor:
        def element(*index) -> tirx.Expr:
            return at_most(at_least(x(*index), low), high) if has_numbers else low + high

        return te.compute(x.shape, element, name="clip")

    return builder.call_te(compute, x, primfunc_name_hint="clip")


def _tile(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Copies along new axes, then a reshape: LLVM 22 gets loops over two remainders wrong."""
    x, repeats = call.args[0], [int(count) for count in call.attrs.repeats]
    sizes = list(x.ty.shape)
    rank = max(len(sizes), len(repeats))
    sizes = [*[1] * (rank - len(sizes)), *sizes]
    repeats = [*[1] * (rank - len(repeats)), *repeats]
    apart = [size for n in sizes for size in (1, n)]
    copies = [size for n, count in zip(sizes, repeats) for size in (count, n)]
    split = builder.normalize(relax.op.reshape(x, apart))
    copied = builder.normalize(relax.op.broadcast_to(split, copies))
    return relax.op.reshape(copied, [n * count for n, count in zip(sizes, repeats)])


def _maximum(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    return _larger(builder, call, topi.maximum, lambda a, b: a > b, "maximum")


def _minimum(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    return _larger(builder, call, topi.minimum, lambda a, b: a < b, "minimum")


def _larger(
    builder: relax.BlockBuilder,
    call: relax.Call,
    plain: Callable[[te.Tensor, te.Tensor], te.Tensor],
    is_beyond: Callable[[tirx.Expr, tirx.Expr], tirx.Expr],
    name: str,
) -> relax.Expr:
    """Lower an op of two operands, of which either may be NaN unless it is a constant."""
    first, second = call.args
    if _is_limit(second):
        first, second = second, first

    def compute(a: te.Tensor, b: te.Tensor) -> te.Tensor:
        limited = plain(a, b)  # Of a NaN and a number it is the second one.
        if _is_limit(first) or "float" not in str(a.dtype):
            return limited

        def element(*index):
            x, y = (_broadcast(tensor, index) for tensor in (a, b))
            ordered = tirx.Select(is_beyond(y, x), y, x + y)
            return tirx.Select(is_beyond(x, y), x, tirx.Select(x == y, y, ordered))

        return te.compute(limited.shape, element, name=name)

    return builder.call_te(compute, first, second, primfunc_name_hint=name)


def _is_limit(expr: relax.Expr) -> bool:
    value = constant_value(expr)
    return value is not None and not np.isnan(value).any()


def _broadcast(tensor: te.Tensor, index: Sequence) -> tirx.Expr:
    """Element of a tensor at an index of what it is repeated to."""
    own = index[len(index) - len(tensor.shape) :]
    return tensor(
        *(0 if topi.utils.equal_const_int(n, 1) else i for n, i in zip(tensor.shape, own))
    )


STRICT_LEGALIZATION = {
    "relax.clip": _clip,
    "relax.maximum": _maximum,
    "relax.minimum": _minimum,
    "relax.multiply": _multiply,
    "relax.nn.relu": _relu,
    "relax.nn.leakyrelu": _leaky_relu,
    "relax.nn.prelu": _prelu,
    "relax.tile": _tile,
}
