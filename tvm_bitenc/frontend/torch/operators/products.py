"""Convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Callable

from tvm import relax

from ..node_call import NodeCall
from .arithmetic import number

_op = relax.op
_LAYOUTS = {1: ("NCW", "OIW", "IOW"), 2: ("NCHW", "OIHW", "IOHW"), 3: ("NCDHW", "OIDHW", "IODHW")}
_CONVOLUTIONS = {1: _op.nn.conv1d, 2: _op.nn.conv2d, 3: _op.nn.conv3d}
_TRANSPOSED = {1: _op.nn.conv1d_transpose, 2: _op.nn.conv2d_transpose}


def per_axis(values: list[int], count: int) -> list[int]:
    """One value for each axis of an image, where one may stand for all."""
    return list(values) * count if len(values) == 1 else list(values)


def convolution(call: NodeCall) -> relax.Expr:
    """Convolution of one, two or three axes, or its transpose."""
    spatial = call.fake("input").ndim - 2
    data, kernel, transposed_kernel = _LAYOUTS.get(spatial, ("", "", ""))
    options = dict(
        strides=per_axis(call.ints("stride"), spatial),
        padding=per_axis(call.ints("padding"), spatial),
        dilation=per_axis(call.ints("dilation"), spatial),
        groups=call["groups"],
        data_layout=data,
        out_dtype=call.dtype,
    )
    if call["transposed"]:
        if spatial not in _TRANSPOSED:
            call.refuse(f"is transposed, of {spatial} axes", "Use one or two axes")
        extra = per_axis(call.ints("output_padding"), spatial)
        op, kernel = _TRANSPOSED[spatial], transposed_kernel
        options["output_padding"] = extra
    else:
        call.read("output_padding")
        if spatial not in _CONVOLUTIONS:
            call.refuse(f"is of {spatial} axes", "Use one, two or three axes")
        op = _CONVOLUTIONS[spatial]
    result = call.emit(op(call["input"], call["weight"], kernel_layout=kernel, **options))
    if "bias" not in call:
        call.read("bias")
        return result
    return call.emit(_op.add(result, _op.reshape(call["bias"], (1, -1, *[1] * spatial))))


def matmul(first: str = "self", second: str = "mat2") -> Callable[[NodeCall], relax.Expr]:
    """Product of two matrices, or two batches of them, that the schema calls so."""
    return lambda call: call.emit(
        _op.matmul(call.tensor(first), call.tensor(second), out_dtype=call.dtype)
    )


def matmul_and_sum(first: str, second: str) -> Callable[[NodeCall], relax.Expr]:
    """``beta * self + alpha * first @ second``; a factor of zero leaves its term out."""

    def convert(call: NodeCall) -> relax.Expr:
        alpha, beta, dtype = call["alpha"], call["beta"], call.dtype
        product = call.emit(_op.matmul(call.tensor(first), call.tensor(second), out_dtype=dtype))
        if alpha != 1:
            product = call.emit(_op.multiply(product, number(alpha, product)))
        bias = call.tensor("self", dtype)
        if not beta:
            return product
        if beta != 1:
            bias = call.emit(_op.multiply(bias, number(beta, bias)))
        return call.emit(_op.add(bias, product))

    return convert


def sum_of_products(call: NodeCall) -> relax.Expr:
    """``beta * self + alpha * sum(batch1 @ batch2)``."""
    alpha, beta, dtype = call["alpha"], call["beta"], call.dtype
    product = call.emit(_op.matmul(call.tensor("batch1"), call.tensor("batch2"), out_dtype=dtype))
    total = call.emit(_op.sum(product, [0]))
    if alpha != 1:
        total = call.emit(_op.multiply(total, number(alpha, total)))
    bias = call.tensor("self", dtype)
    if not beta:
        return total
    return call.emit(_op.add(_op.multiply(bias, number(beta, bias)), total))


OPERATORS: dict[str, Callable] = {
    "addbmm.default": sum_of_products,
    "addmm.default": matmul_and_sum("mat1", "mat2"),
    "baddbmm.default": matmul_and_sum("batch1", "batch2"),
    "bmm.default": matmul(),
    "convolution.default": convolution,
    "mm.default": matmul(),
}
