"""What shaping ops of Relax do to numpy arrays: weights are moved about while compiling."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import SupportsInt

import numpy as np
from tvm import relax
from tvm.ir import Op

from ...op.registration import constant_value, required_constant


def _ints(values: Iterable[SupportsInt]) -> list[int]:
    return [int(value) for value in values]


def slices(call: relax.Call) -> dict[int, slice]:
    """Range of each axis that a `relax.strided_slice` names, as Python spells it."""
    axes, begins, ends, *rest = ([int(number.value) for number in part] for part in call.args[1:])
    strides = rest[0] if rest else [1] * len(axes)
    shape, found = call.args[0].ty.shape, {}
    for axis, begin, end, stride in zip(axes, begins, ends, strides):
        # Down to the first element: Python would count -1 from the end.
        is_whole = stride < 0 and end < -int(shape[axis])
        found[axis % len(shape)] = slice(begin, None if is_whole else end, stride)
    return found


def _strided_slice(call: relax.Call, x: np.ndarray) -> np.ndarray:
    ranges = slices(call)
    return x[tuple(ranges.get(axis, slice(None)) for axis in range(x.ndim))]


def _take(call: relax.Call, x: np.ndarray) -> np.ndarray:
    axis = None if call.attrs.axis is None else int(call.attrs.axis)
    return np.take(x, required_constant(call.args[1]), axis)


def moves_constants(call: relax.Expr) -> bool:
    """Whether an expression moves values to places known while compiling."""
    name = call.op.name if isinstance(call, relax.Call) and isinstance(call.op, Op) else ""
    is_chosen_later = name == "relax.take" and constant_value(call.args[1]) is None
    return name in FUNCTIONS and not is_chosen_later


FUNCTIONS: dict[str, Callable[[relax.Call, np.ndarray], np.ndarray]] = {
    "relax.reshape": lambda call, x: x.reshape(_ints(call.args[1])),
    "relax.flatten": lambda _, x: x.reshape(-1),
    "relax.expand_dims": lambda call, x: np.expand_dims(x, tuple(_ints(call.attrs.axis))),
    "relax.squeeze": lambda call, x: x.reshape(_ints(call.ty.shape)),
    "relax.permute_dims": lambda call, x: np.transpose(
        x, None if call.attrs.axes is None else _ints(call.attrs.axes)
    ),
    "relax.strided_slice": _strided_slice,
    "relax.take": _take,
    "relax.flip": lambda call, x: np.flip(x, int(call.attrs.axis)),
    "relax.tile": lambda call, x: np.tile(x, _ints(call.attrs.repeats)),
    "relax.broadcast_to": lambda call, x: np.broadcast_to(x, _ints(call.args[1])),
}
