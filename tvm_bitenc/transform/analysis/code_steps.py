"""The function between an accumulator and its code as float32 steps, which a kernel can compute.

Thresholds say what the code is. Where there are many, the graph's own arithmetic costs less than
to search among them, and it gives the same code: it is what they were found from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...encoding import Encoding
from ...layer import RESIDUAL, STEP_CONSTANTS, FloatStep
from .float32 import op_name
from .steps import Step
from .unary import Unary

# Roundings of an encoder, as steps.
_ROUNDINGS = {"half_even": "round", "floor": "floor", "ceil": "ceil", "toward_zero": "trunc"}
_SAME = {name for name in STEP_CONSTANTS if name not in ("astype", RESIDUAL)}


def code_steps(steps: Sequence[Step], encoding: Encoding, channels: int) -> tuple[FloatStep, ...]:
    """Return the steps from an accumulator to its code, none where one isn't among them.

    The code is float32, and limited to what its bits hold by whoever computes it.

    Parameters
    ----------
    steps : sequence of Step
        From the accumulator to the encoder.
    encoding : Encoding
        Of one scale.
    channels : int
        Of the accumulators.
    """
    if not steps or op_name(steps[0].call) != "relax.astype":
        return ()
    if encoding.rounding not in _ROUNDINGS or not encoding.has_arithmetic_codes:
        return ()
    found = [_read(step, channels) for step in steps[1:]]
    known = [step for step in found if step is not None]
    if len(known) < len(found):
        return ()
    return (FloatStep("astype"), *known, *_of_encoder(encoding, channels))


def _read(step: Step, channels: int) -> FloatStep | None:
    op = step.function
    if not isinstance(op, Unary):
        return None
    name, values = op.name.rpartition(".")[2], [op.constants[i] for i in sorted(op.constants)]
    if name == "relu":
        name, values = "maximum", [np.float32(0)]
    elif name == "negative":
        name, values = "multiply", [np.float32(-1)]
    elif name == "subtract" and op.variable == 0:
        name, values = "add", [-values[0]]  # Exactly the same.
    elif name == "leakyrelu":
        name, values = "prelu", [np.float32(op.call.attrs.alpha)]
    elif name not in _SAME:
        return None
    rows = [_by_channel(value, channels) for value in values]
    constants = [row for row in rows if row is not None]
    return FloatStep(name, tuple(constants)) if len(constants) == len(rows) else None


def _by_channel(value: np.ndarray | np.float32, channels: int) -> np.ndarray | None:
    """Return a constant as one number per channel, None for one that varies over the image."""
    value = np.asarray(value, np.float32)
    if value.size not in (1, channels) or np.isnan(value).any():
        return None
    return np.ascontiguousarray(np.broadcast_to(value.reshape(-1), (channels,)))


def _of_encoder(encoding: Encoding, channels: int) -> Sequence[FloatStep]:
    """Return `Encoding.quantize` as steps, but for the limits that any code of its bits has."""
    late = np.float32(encoding.late_zero_point)
    steps = [
        ("divide", encoding.scale.reshape(-1)[0], 1),
        ("add", encoding.zero_point.reshape(-1)[0] - late, 0),
        (_ROUNDINGS[encoding.rounding], None, None),
        ("add", late, 0),
        ("minimum", np.float32(encoding.max_code), 2**encoding.bits - 1),  # Of a narrow range.
    ]
    return [
        FloatStep(name, () if value is None else (np.full(channels, value, np.float32),))
        for name, value, neutral in steps
        if value is None or value != neutral
    ]
