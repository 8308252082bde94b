"""`bitenc.decode`: codes to the float32 levels that they stand for."""

from __future__ import annotations

from tvm import relax, te, tirx

from ..encoding import Encoding
from ..te.rounded import rounded
from .quantize import call_with_encoding, encoding_of
from .registration import describe, register_op, tensor_shape


def decode(codes: relax.Expr, encoding: Encoding) -> relax.Call:
    """Levels ``(code - zero_point) * scale`` of codes: what `quantize` makes of what `encode` read.

    Parameters
    ----------
    codes : relax.Expr of uint8
    encoding : Encoding
        Per tensor, its coefficients powers of two.

    Returns
    -------
    relax.Call of float32, same shape
    """
    return call_with_encoding(decode_op, codes, encoding)


def _infer_type(call: relax.Call) -> relax.TensorType:
    return relax.TensorType(tensor_shape(call.args[0], "uint8", describe(call)), "float32")


def _legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    encoding = encoding_of(call)
    scale, zero_point = (
        tirx.const(value.item(), "float32") for value in (encoding.scale, encoding.zero_point)
    )

    def compute(codes: te.Tensor) -> te.Tensor:
        def element(*index) -> tirx.Expr:
            return rounded((tirx.Cast("float32", codes(*index)) - zero_point) * scale)

        return te.compute(codes.shape, element, name="decode")

    return builder.call_te(compute, call.args[0], primfunc_name_hint="bitenc_decode")


decode_op = register_op("bitenc.decode", ("codes", "scale", "zero_point"), _infer_type, _legalize)
