"""Quantizers move in front of concatenations, padding and the like, so that codes flow.

Before::

    y = R.concat((a, b), axis=1)                  # accumulators of two layers, rescaled
    y1 = R.nn.relu(R.multiply(y, gamma))
    q = bitenc.quantize(y1, scale, zero_point)

After::

    qa = bitenc.quantize(R.nn.relu(R.multiply(a, gamma_a)), scale, zero_point)
    qb = bitenc.quantize(R.nn.relu(R.multiply(b, gamma_b)), scale, zero_point)
    q = R.concat((qa, qb), axis=1)

A quantizer and the arithmetic in front of it work element by element, so they commute with whatever
only moves elements. `lower` then finds the quantizers behind the shaping op, and `fold` finds
nothing but arithmetic between each and its accumulator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from ..op.interleave import interleave_op
from ..op.quantize import encoding_of, quantize_op
from ..op.registration import is_call_to
from .analysis.dag import once_per_variable
from .analysis.float32 import op_name
from .analysis.shaping import (
    PAD,
    RESHAPING,
    constant_pad,
    is_nearest,
    on_sources,
    pad_widths,
    sources,
)
from .analysis.unary import OWN_AXES, Unary, unary
from .rewrite import Graph, rewrite_calls

# Slices and pooling aren't here: `fold` sees through them, and they leave less to be quantized.
MOVABLE = (
    *RESHAPING,
    PAD,
    "relax.concat",
    "relax.permute_dims",
    "relax.flip",
    interleave_op.name,
)
MAX_STEPS = 64  # That are moved with a quantizer.
MAX_DEPTH = 16  # Shaping ops, one behind the other, that they are moved in front of.


@tvm.transform.module_pass(opt_level=0, name="bitenc.PushQuantizers")
class PushQuantizers:
    """Move quantizers, and elementwise arithmetic in front of them, before shaping ops."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""

        def push(call: relax.Call, graph: Graph) -> relax.Expr | None:
            step = _step(call, graph) if is_call_to(call, quantize_op) else None
            return None if step is None else _moved(step.argument, [step], graph)

        return rewrite_calls(mod, push)


@dataclass(frozen=True)
class _Step:
    """An elementwise op of one tensor and constants in front of a quantizer, or the quantizer.

    Parameters
    ----------
    call : relax.Call
    variable : int
        Which of its arguments is the tensor.
    values : dict of int to ndarray
        Values of the others, shaped to the rank of the tensor unless they are plain numbers.
    """

    call: relax.Call
    variable: int
    values: dict[int, np.ndarray]

    @property
    def argument(self) -> relax.Expr:
        return self.call.args[self.variable]

    def on(self, tensor: relax.Expr, graph: Graph) -> relax.Expr:
        """Emit the op on another tensor."""
        arguments = list(self.call.args)
        arguments[self.variable] = tensor
        for i, value in self.values.items():
            if value.ndim:
                arguments[i] = relax.const(value, str(value.dtype))
        return graph.emit(relax.Call(self.call.op, arguments, self.call.attrs))

    def of(self, x: np.ndarray) -> np.ndarray:
        """What the op makes of an array."""
        if is_call_to(self.call, quantize_op):
            encoding = encoding_of(self.call)
            return encoding.dequantize(encoding.quantize(x))
        return Unary(self.call, self.variable, self.values)(x)


@once_per_variable()
def _origin(expr: relax.Expr, graph: Graph) -> tuple[relax.Expr, int]:
    """Expression that elementwise ops of one tensor lead back to, and how many ops they are."""
    step = _step(expr, graph)
    if step is None:
        return expr, 0
    origin, ops = _origin(step.argument, graph)
    return origin, ops + 1


@once_per_variable()
def _step(expr: relax.Expr, graph: Graph) -> _Step | None:
    """Read an expression as an elementwise op, if it is one."""
    expr = graph.definition(expr)
    if is_call_to(expr, quantize_op):
        encoding = encoding_of(expr)
        is_uniform = encoding.scale.size == encoding.zero_point.size == 1
        return _Step(expr, 0, {}) if is_uniform else None
    op = unary(expr, graph, first_only=())  # What moves keeps no order.
    if op is None or op.name in OWN_AXES or not _is_alike(op.argument.ty, expr.ty):
        return None
    rank = len(expr.ty.shape)
    shaped = {
        i: value.reshape((1,) * (rank - value.ndim) + value.shape) if value.ndim else value
        for i, value in op.constants.items()
    }
    return _Step(expr, op.variable, shaped)


def _is_alike(before: relax.Type, after: relax.Type) -> bool:
    """Whether both are tensors of floats or of sums, of one rank."""
    numbers = {str(before.dtype), str(after.dtype)} <= {"float32", "int32"}
    return numbers and len(before.shape) == len(after.shape)


def _moved(expr: relax.Expr, steps: list[_Step], graph: Graph, depth: int = 0) -> relax.Expr | None:
    """Apply steps in front of the shaping op that an expression comes from; None if there is none.

    Elementwise ops between the shaping op and the expression are moved as well.
    """
    origin, ops = _origin(expr, graph)
    source = graph.definition(origin)
    if depth == MAX_DEPTH or not _is_movable(source) or ops + len(steps) > MAX_STEPS:
        return None
    while (step := _step(expr, graph)) is not None:
        steps = [step, *steps]
        expr = step.argument
    tensors = sources(source, graph)
    pad_value = _padded_value(source, steps)
    if pad_value is None or not tensors:
        return None
    steps_of = []
    for i in range(len(tensors)):
        own = _steps_on(i, tensors, source, steps)
        if own is None:
            return None
        steps_of.append(own)
    parts = [_applied(tensor, own, graph, depth) for tensor, own in zip(tensors, steps_of)]
    return on_sources(source, parts, pad_value)


def _is_movable(source: relax.Expr) -> bool:
    if op_name(source) == "relax.take":  # As upsampling is spelt, it makes no image smaller.
        shapes = [list(tensor.ty.shape) for tensor in (source.args[0], source)]
        if source.attrs.axis is None or len(shapes[0]) != len(shapes[1]):
            return False
        before, after = (shape[int(source.attrs.axis)] for shape in shapes)
        return all(isinstance(n, tvm.tirx.IntImm) for n in (before, after)) and after >= before
    return op_name(source) in MOVABLE or is_nearest(source)


def _applied(tensor: relax.Expr, steps: list[_Step], graph: Graph, depth: int) -> relax.Expr:
    moved = _moved(tensor, steps, graph, depth + 1)
    if moved is not None:
        return graph.emit(moved)
    for step in steps:
        tensor = step.on(tensor, graph)
    return tensor


def _padded_value(source: relax.Expr, steps: list[_Step]) -> float | None:
    """What steps make of the value that an op pads with; None if it differs by channel."""
    value = constant_pad(source)
    x = np.float32(value or 0)
    if value is not None:
        for step in steps:
            x = step.of(x)
    return float(x.reshape(-1)[0]) if np.all(x == x.reshape(-1)[0]) else None


def _steps_on(
    part: int, tensors: Sequence[relax.Expr], source: relax.Call, steps: list[_Step]
) -> list[_Step] | None:
    """Steps behind a shaping op as they are in front of it, for one of its tensors."""
    found = []
    for step in steps:
        values = {}
        for i, value in step.values.items():
            moved = _constant_on(part, tensors, source, value) if value.ndim else value
            if moved is None:
                return None
            values[i] = moved
        found.append(_Step(step.call, step.variable, values))
    return found


def _constant_on(
    part: int, tensors: Sequence[relax.Expr], source: relax.Call, value: np.ndarray
) -> np.ndarray | None:
    """What a constant behind a shaping op is in front of it, if it can be moved there."""
    shape, name = list(tensors[part].ty.shape), op_name(source)
    varying = [axis for axis, size in enumerate(value.shape) if size > 1]
    if not varying:
        return value.reshape((1,) * len(shape))
    if name == "relax.concat":
        axis = int(source.attrs.axis) % len(shape)
        if axis not in varying:
            return value
        first = sum(int(tensor.ty.shape[axis]) for tensor in tensors[:part])
        return np.take(value, range(first, first + int(shape[axis])), axis)
    if name == "relax.permute_dims":
        axes = list(source.attrs.axes or range(len(shape))[::-1])
        return value.transpose(np.argsort([int(axis) for axis in axes]))
    if name in RESHAPING:
        return _reshaped_back(value, varying, shape, list(source.ty.shape))
    return None if set(varying) & _changed_axes(source) else value


def _reshaped_back(
    value: np.ndarray, varying: list[int], shape: list, new_shape: list
) -> np.ndarray | None:
    """Find the one axis that a constant varies along in the shape before a reshaping."""
    axis = varying[-1]
    behind = [math.prod(map(int, new_shape[axis + 1 :])), int(new_shape[axis])]
    for old in range(len(shape) - 1, -1, -1):
        if len(varying) == 1 and behind == [
            math.prod(map(int, shape[old + 1 :])),
            int(shape[old]) if isinstance(shape[old], tvm.tirx.IntImm) else -1,
        ]:
            return value.reshape([-1 if i == old else 1 for i in range(len(shape))])
    return None


def _changed_axes(source: relax.Call) -> set[int]:
    """Axes along which a shaping op moves, copies or adds values."""
    if op_name(source) == PAD:
        return {axis for axis, widths in enumerate(pad_widths(source)) if any(widths)}
    if is_call_to(source, interleave_op):
        axis = int(source.attrs["axis"])
        return {axis, axis + 1}
    if op_name(source) in ("relax.flip", "relax.take"):
        return {int(source.attrs.axis) % len(source.ty.shape)}
    return {str(source.attrs.layout).index(letter) for letter in "HW"}
