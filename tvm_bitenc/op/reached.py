"""`bitenc.reached`: how many thresholds a float32 number reaches, FINN's MultiThreshold."""

from __future__ import annotations

import numpy as np
from tvm import relax, te, tirx

from ..encoding import along
from ..te.threshold import threshold as te_threshold
from .registration import describe, make_call, register_op, required_constant, tensor_shape


def reached(x: relax.Expr, thresholds: np.ndarray, channel_axis: int) -> relax.Call:
    """Count, as float32, the thresholds t of each channel with ``x >= t``.

    Parameters
    ----------
    x : relax.Expr of float32
    thresholds : ndarray of float32, shape (steps, channels), rising along axis 0
    channel_axis : int
    """
    constant = relax.const(thresholds, "float32")
    return make_call(reached_op, [x, constant], channel_axis=channel_axis)


def count_reached(x: np.ndarray, thresholds: np.ndarray, channel_axis: int) -> np.ndarray:
    """Return what the op computes, in numpy."""
    counts = np.zeros(x.shape, np.float32)
    for step in thresholds:
        counts += x >= along(step, x.ndim, channel_axis)
    return counts


def _infer_type(call: relax.Call) -> relax.TensorType:
    return relax.TensorType(tensor_shape(call.args[0], "float32", describe(call)), "float32")


def _legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    axis, thresholds = int(call.attrs["channel_axis"]), required_constant(call.args[1])
    # As many as a code of some bits can count; nothing reaches NaN.
    missing = (1 << len(thresholds).bit_length()) - 1 - len(thresholds)
    padded = np.pad(thresholds, ((0, missing), (0, 0)), constant_values=np.nan)
    ones = np.ones(thresholds.shape[1], np.float32)

    def compute(x: te.Tensor, steps: te.Tensor, direction: te.Tensor) -> te.Tensor:
        codes = te_threshold(x, steps, direction, axis)
        return te.compute(codes.shape, lambda *i: tirx.Cast("float32", codes(*i)), name="reached")

    return builder.call_te(
        compute,
        call.args[0],
        relax.const(padded),
        relax.const(ones),
        primfunc_name_hint="bitenc_reached",
    )


reached_op = register_op("bitenc.reached", ("x", "thresholds"), _infer_type, _legalize)
