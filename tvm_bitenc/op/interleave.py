"""`bitenc.interleave`: small images woven into a large one, as transposed convolutions need it."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import relax, te

from ..errors import UnsupportedError
from ..layer import height_width
from ..te.interleave import interleave as te_interleave
from .registration import describe, make_call, register_op


def interleave(
    parts: Sequence[relax.Expr], strides: tuple[int, int], size: tuple[int, int], axis: int = 2
) -> relax.Call:
    """Weave images: row i of column j comes from row i // s_h, column j // s_w of one part.

    Parameters
    ----------
    parts : sequence of s_h * s_w relax.Expr of one shape and dtype, any dtype
        Part ``s_w * (i % s_h) + j % s_w`` has element (i, j).
    strides : (s_h, s_w)
    size : (height, width)
        Of the result; rows and columns beyond are left out.
    axis : int
        Of the rows; columns are on the next one.
    """
    return make_call(
        interleave_op,
        parts,
        strides=list(strides),
        size=list(size),
        axis=axis,
    )


def _infer_type(call: relax.Call) -> relax.TensorType:
    parts = [part.ty for part in call.args]
    shape = list(parts[0].shape)
    strides, axis = [int(s) for s in call.attrs["strides"]], int(call.attrs["axis"])
    if len(parts) != strides[0] * strides[1]:
        raise UnsupportedError(
            describe(call), f"{len(parts)} parts for strides {strides}", "Give one per phase"
        )
    size = [int(extent) for extent in call.attrs["size"]]
    return relax.TensorType([*shape[:axis], *size, *shape[axis + 2 :]], parts[0].dtype)


def _legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    strides, size = (height_width(call.attrs[name]) for name in ("strides", "size"))
    axis = int(call.attrs["axis"])

    def compute(*parts: te.Tensor) -> te.Tensor:
        return te_interleave(parts, strides, size, axis)

    return builder.call_te(compute, *call.args, primfunc_name_hint="bitenc_interleave")


interleave_op = register_op("bitenc.interleave", ("parts",), _infer_type, _legalize)
