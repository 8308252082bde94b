"""`bitenc.threshold`: integer accumulators to codes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import relax

from ..layer import FloatStep
from ..te.threshold import threshold as te_threshold
from .registration import describe, make_call, register_op, tensor_shape


def threshold(
    acc: relax.Expr,
    thresholds: np.ndarray,
    direction: np.ndarray,
    channel_axis: int = 1,
    code_steps: Sequence[FloatStep] = (),
) -> relax.Call:
    """Codes (uint8): how many thresholds ``direction * acc`` reaches, channel by channel.

    Parameters
    ----------
    acc : relax.Expr of int32
    thresholds : ndarray of int32, shape (2^bits - 1, channels), rising along axis 0
    direction : ndarray of int32, shape (channels,), +1 or -1
    channel_axis : int
    code_steps : sequence of FloatStep
        The function that thresholds stand for, see `layer.ConvLayer`.
    """
    constants = [relax.const(value, "int32") for value in (thresholds, direction)]
    constants += [relax.const(v, "float32") for step in code_steps for v in step.constants]
    attributes = {"code_steps": [step.name for step in code_steps]} if code_steps else {}
    return make_call(threshold_op, [acc, *constants], channel_axis=channel_axis, **attributes)


def code_step_names(call: relax.Call) -> dict[str, list[str]]:
    """Return the attribute that names the steps of thresholds, nothing where there is none."""
    names = call.attrs.get("code_steps", ()) if call.attrs else ()
    return {"code_steps": list(map(str, names))} if names else {}


def _infer_type(call: relax.Call) -> relax.TensorType:
    return relax.TensorType(tensor_shape(call.args[0], "int32", describe(call)), "uint8")


def _legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    axis = int(call.attrs["channel_axis"])
    return builder.call_te(
        lambda acc, thresholds, direction: te_threshold(acc, thresholds, direction, axis),
        *call.args[:3],
        primfunc_name_hint="bitenc_threshold",
    )


threshold_op = register_op(
    "bitenc.threshold", ("acc", "thresholds", "direction"), _infer_type, _legalize
)
