"""Normalizations, and the statistics that they return beside."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import numpy as np
from tvm import relax

from ....op.multiply_add import multiply_add
from ..names import base_name
from ..node_call import NodeCall, constant
from .arithmetic import number
from .indexing import take

_op = relax.op
AFFINE = ("weight", "bias")
# Operators whose result lies in their first operand's memory.
VIEWS = ("alias", "detach", "expand", "permute", "select", "slice", "squeeze", "unsqueeze", "view")


def batch_norm(call: NodeCall) -> tuple:
    """Batch-norm in eval mode as torch computes it on every vector CPU: x * alpha + beta.

    ``alpha = gamma * (1 / sqrt(var + eps))`` and ``beta = bias - mean * alpha``, in float32, and
    both products with a sum are rounded once: torch's kernel is compiled with such instructions.
    """
    call.read("momentum")
    emit, one = call.emit, constant(np.float32(1))
    x, mean, variance = (call[name] for name in ("input", "running_mean", "running_var"))
    eps = constant(np.float32(call["eps"]))
    alpha = emit(_op.divide(one, emit(_op.sqrt(emit(_op.add(variance, eps))))))
    if call["weight"] is not None:
        alpha = emit(_op.multiply(alpha, call["weight"]))
    bias = call["bias"]
    if bias is None:
        bias = constant(np.zeros(int(mean.ty.shape[0]), np.float32))
    beta = emit(multiply_add(emit(_op.negative(mean)), alpha, bias))
    shape = (1, -1, *[1] * (len(x.ty.shape) - 2))
    factors = [emit(_op.reshape(factor, shape)) for factor in (alpha, beta)]
    return emit(multiply_add(x, *factors)), None, None


def batch_statistics_norm(call: NodeCall) -> tuple:
    """A normalization by the statistics of the batch at hand: instance-norm is spelt so."""
    call.read("training", "momentum")
    rank = call.fake("input").ndim
    axes = [axis for axis in range(rank) if axis != 1]
    mean, deviation, result = _normalized(call, call["input"], axes)
    shape = (1, -1, *[1] * (rank - 2))
    result = _affine(call, result, shape, [call[name] for name in AFFINE])
    statistics = [call.emit(_op.reshape(value, (-1,))) for value in (mean, deviation)]
    return result, *statistics


def layer_norm(call: NodeCall) -> tuple:
    """Layer-norm; its statistics only where something reads them."""
    x, rank = call["input"], call.fake("input").ndim
    axes = list(range(rank - len(call["normalized_shape"]), rank))
    shape = [int(size) for size in call["normalized_shape"]]
    gamma, beta = (
        constant(np.full(shape, value, call.dtype)) if call[name] is None else call[name]
        for name, value in (("weight", 1), ("bias", 0))
    )
    result = call.emit(_op.nn.layer_norm(x, gamma, beta, axes, float(call["eps"])))
    if not (call.is_used(1) or call.is_used(2)):
        return result, None, None
    return result, *_statistics(call, x, axes)


def group_norm(call: NodeCall) -> tuple:
    """Group-norm: each group of channels by its own mean and deviation."""
    x, fake = call["input"], call.fake("input")
    call.read("N")
    groups, (batch, channels) = call["group"], list(x.ty.shape)[:2]
    size = call.ints("C")[0] // groups * call.ints("HxW")[0]
    parts = call.emit(_op.reshape(x, (batch, groups, size)))
    mean, deviation, result = _normalized(call, parts, [2])
    result = call.emit(_op.reshape(result, list(x.ty.shape)))
    shape = (1, channels, *[1] * (fake.ndim - 2))
    result = _affine(call, result, shape, [_as_it_lies(call, name) for name in AFFINE])
    statistics = [call.emit(_op.reshape(value, (batch, groups))) for value in (mean, deviation)]
    return result, *statistics


def _as_it_lies(call: NodeCall, name: str) -> relax.Expr | None:
    """A weight as torch's kernel of group-norm reads it: in a row, whatever its strides are."""
    node = call.graph_value(name)
    if node is None or call.fake(name).is_contiguous():
        return call[name]
    fake, first = call.fake(name), int(call.fake(name).storage_offset())
    while base_name(node) in VIEWS:
        node = node.args[0]
    memory = node.meta["val"]
    whole = memory.is_contiguous() and memory.storage_offset() == 0
    if not whole or first + fake.numel() > memory.numel():
        call.refuse(f"has a {name} with strides", f"Give it {name}.contiguous()")
    flat = call.emit(_op.reshape(call.importer.env[node], (-1,)))
    return call.emit(take(flat, constant(first + np.arange(fake.numel())), 0))


def _statistics(call: NodeCall, x: relax.Expr, axes: list[int]) -> tuple[relax.Expr, relax.Expr]:
    """Mean and reciprocal deviation, with the axes kept."""
    mean = call.emit(_op.mean(x, axes, keepdims=True))
    difference = call.emit(_op.subtract(x, mean))
    variance = call.emit(_op.mean(_op.multiply(difference, difference), axes, keepdims=True))
    return mean, call.emit(_op.rsqrt(_op.add(variance, number(call["eps"], x))))


def _normalized(call: NodeCall, x: relax.Expr, axes: list[int]) -> tuple:
    mean, deviation = _statistics(call, x, axes)
    difference = call.emit(_op.subtract(x, mean))
    return mean, deviation, call.emit(_op.multiply(difference, deviation))


def _affine(call: NodeCall, x: relax.Expr, shape: tuple, factors: list) -> relax.Expr:
    for factor, op in zip(factors, (_op.multiply, _op.add)):
        if factor is not None:
            x = call.emit(op(x, _op.reshape(factor, shape)))
    return x


def refuse_training(call: NodeCall) -> NoReturn:
    """Refuse an op that behaves otherwise in training."""
    call.refuse("is in training mode", "Export the model after model.eval()")


OPERATORS: dict[str, Callable] = {
    "_native_batch_norm_legit.no_stats": batch_statistics_norm,
    "_native_batch_norm_legit_functional.default": refuse_training,
    "_native_batch_norm_legit_no_training.default": batch_norm,
    "native_group_norm.default": group_norm,
    "native_layer_norm.default": layer_norm,
}
