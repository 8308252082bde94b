"""`bitenc.lookup`: codes from one or two tensors of codes, by a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import relax, te

from ..te import lookup as te_lookup
from .packed import register_packed
from .registration import describe, make_call, register_op, tensor_shape


def lookup(codes: Sequence[relax.Expr], table: np.ndarray, bits: int) -> relax.Call:
    """Codes ``table[a]`` or ``table[a, b]``, element by element.

    Parameters
    ----------
    codes : one or two relax.Expr of uint8, of one shape
    table : ndarray of uint8, shape (2^bits of a,) or (2^bits of a, 2^bits of b)
        Rising along each axis.
    bits : int
        Of the result.

    Returns
    -------
    relax.Call of uint8, same shape
    """
    return make_call(lookup_op, [*codes, relax.const(table, "uint8")], bits=bits)


def packed_lookup(planes: Sequence[relax.Expr], call: relax.Call) -> relax.Call:
    """Return the `lookup` of `call` on packed planes."""
    attributes = {"bits": int(call.attrs["bits"]), "channels": int(call.ty.shape[1])}
    return make_call(packed_lookup_op, [*planes, call.args[-1]], **attributes)


def _infer_type(call: relax.Call) -> relax.TensorType:
    return relax.TensorType(tensor_shape(call.args[0], "uint8", describe(call)), "uint8")


def _legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    def compute(*tensors: te.Tensor) -> te.Tensor:
        return te_lookup.lookup(tensors[:-1], tensors[-1])

    return builder.call_te(compute, *call.args, primfunc_name_hint="bitenc_lookup")


def _infer_packed(call: relax.Call) -> relax.TensorType:
    *outer, _, words = tensor_shape(call.args[0], "uint64", describe(call))
    return relax.TensorType([*outer, int(call.attrs["bits"]), words], "uint64")


def _compute_packed(call: relax.Call):
    bits, channels = int(call.attrs["bits"]), int(call.attrs["channels"])

    def compute(*tensors: te.Tensor) -> te.Tensor:
        return te_lookup.packed_lookup(tensors[:-1], tensors[-1], bits, channels)

    return compute, call.args


lookup_op = register_op("bitenc.lookup", ("codes", "table"), _infer_type, _legalize)
packed_lookup_op = register_packed(
    "bitenc.packed_lookup", ("planes", "table"), _infer_packed, _compute_packed
)
