"""`bitenc.branch_matmul`: products of matrices of codes, both of them made at run time."""

from __future__ import annotations

from collections.abc import Callable

from tvm import relax, te

from ..encoding import Encoding
from ..te.int_matmul import int_matmul
from .registration import describe, make_call, register_op, tensor_shape


def branch_matmul(
    a: relax.Expr,
    a_encoding: Encoding,
    b: relax.Expr,
    b_encoding: Encoding,
    *,
    transpose_b: bool = False,
    layer: str = "",
) -> relax.Call:
    r"""Multiply matrices of codes: int32 accumulators :math:`\sum (v_a + o_a)(v_b + o_b)`.

    Neither is known while compiling, so nothing can be laid out in advance: the integers are made
    and multiplied as they are, which the strategy `int8` stands for.

    Parameters
    ----------
    a : relax.Expr of uint8, shape (B, N, I)
    b : relax.Expr of uint8, shape (B, I, O)
    a_encoding, b_encoding : Encoding
        Per tensor.
    transpose_b : bool
        Whether b has the shape (B, O, I).
    layer : str
        Name for reports and messages.

    Returns
    -------
    relax.Call of int32, shape (B, N, O)
    """
    return make_call(
        branch_matmul_op,
        [a, b],
        act_coefficients=list(a_encoding.integer_coefficients),
        act_offset=int(a_encoding.offset),
        weight_coefficients=list(b_encoding.integer_coefficients),
        weight_offset=int(b_encoding.offset),
        transpose_b=int(transpose_b),
        layer=layer,
        strategy="int8",
    )


def compute_of(call: relax.Call) -> Callable[[te.Tensor, te.Tensor], te.Tensor]:
    """TE definition of a call: a function of its two operands."""
    act, weight = (
        (
            tuple(int(c) for c in call.attrs[f"{which}_coefficients"]),
            int(call.attrs[f"{which}_offset"]),
        )
        for which in ("act", "weight")
    )

    def compute(a: te.Tensor, b: te.Tensor) -> te.Tensor:
        return int_matmul(a, b, act, weight, transposes_b(call))

    return compute


def transposes_b(call: relax.Call) -> bool:
    """Whether the second operand of a call has its columns as rows."""
    return bool(int(call.attrs["transpose_b"]))


def _infer_type(call: relax.Call) -> relax.TensorType:
    batch, rows, _ = tensor_shape(call.args[0], "uint8", describe(call))
    _, *sides = tensor_shape(call.args[1], "uint8", describe(call))
    columns = sides[0 if transposes_b(call) else 1]
    return relax.TensorType([batch, rows, columns], "int32")


def _legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    return builder.call_te(compute_of(call), *call.args, primfunc_name_hint="bitenc_branch_matmul")


branch_matmul_op = register_op("bitenc.branch_matmul", ("a", "b"), _infer_type, _legalize)
