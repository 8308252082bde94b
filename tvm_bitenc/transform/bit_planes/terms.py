"""Sums of convolutions of bit planes, in the ways that they are spelt.

Convolutions may be added up one after another, or stacked and summed. One convolution may read all
planes side by side; with a group for each plane, its blocks of output channels are summed then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tvm import relax, tirx

from ...op.quantize import encoding_of
from ..analysis.bits import MAX_BITS, Bits, bits_of
from ..analysis.dag import once_per_variable
from ..analysis.float32 import evaluate, op_name
from ..lower.operands import weight, weight_quantizer
from ..lower.reasons import LAYOUTS
from ..rewrite import Graph

ADD, SUM, CONV2D, CONCAT = "relax.add", "relax.sum", "relax.nn.conv2d", "relax.concat"
SCALED: dict[str, Callable] = {"relax.multiply": np.multiply, "relax.divide": np.divide}
THROUGH = (ADD, SUM, CONCAT, "relax.reshape", *SCALED)  # What lies between sums and convolutions.


@dataclass(frozen=True, eq=False)
class Term:
    """A convolution of one plane.

    Parameters
    ----------
    plane : Bits
    convolution : relax.Call
        It may read further planes.
    factor : ndarray of float64, shape () or (out_channels,)
    index, count : int
        Its weights are part `index` of `count` along an axis.
    axis : int
        0 for output channels, each part in groups of its own; 1 for input channels.
    """

    plane: Bits
    convolution: relax.Call
    factor: np.ndarray
    index: int = 0
    count: int = 1
    axis: int = 1

    @property
    def groups(self) -> int:
        """Groups of the plane's channels."""
        groups = int(self.convolution.attrs.groups)
        return groups // self.count if self.axis == 0 else groups

    def weights(self, graph: Graph) -> tuple[np.ndarray, np.ndarray]:
        """Codes of one bit, and the factor of each output channel's sum of signs, float64."""
        codes, encoding = weight(self.convolution, graph, out_axis=0)
        scale = np.broadcast_to(encoding.scale.astype(np.float64) / 2, len(codes))
        own = np.split(codes, self.count, self.axis)[self.index]
        if self.axis == 0:
            scale = np.split(scale, self.count)[self.index]
        return own, np.broadcast_to(self.factor * scale, len(own))


def parts_of(call: relax.Call, graph: Graph) -> set[relax.Var]:
    """Variables that a sum is made of, down to its convolutions."""
    found: set[relax.Var] = set()
    waiting = list(call.args)
    while waiting:
        expr = waiting.pop()
        definition = graph.definition(expr)
        if isinstance(definition, relax.Tuple):
            waiting.extend(definition.fields)
        if isinstance(expr, relax.Var) and op_name(definition) in (CONV2D, *THROUGH):
            found.add(expr)
            waiting.extend(() if op_name(definition) == CONV2D else definition.args)
    return found


def _operands(expr: relax.Expr, graph: Graph) -> Sequence[relax.Expr]:
    call = graph.definition(expr)
    if isinstance(call, relax.Tuple):
        return call.fields
    return list(call.args) if op_name(call) in THROUGH else ()


@once_per_variable(_operands)
def terms_of(expr: relax.Expr, graph: Graph) -> tuple[Term, ...]:
    """Convolutions of bit planes whose sum an expression is; empty if it is none."""
    call = graph.definition(expr)
    return terms_of_call(call, graph) if isinstance(call, relax.Call) else ()


def terms_of_call(call: relax.Call, graph: Graph) -> tuple[Term, ...]:
    """See `terms_of`."""
    name = op_name(call)
    if name == CONV2D:
        found = _of_convolution(call, graph)
        is_sum = bool(found) and (found[0].axis == 1 or len(found) == 1)
        return found if is_sum and _are_one_layer(found) else ()
    if name in SCALED:
        value, terms = evaluate(call.args[1], graph), terms_of(call.args[0], graph)
        channels = int(call.ty.shape[1]) if terms else 0
        factor = None if value is None or not terms else _by_channel(value, channels)
        return () if factor is None else tuple(_scaled(term, call, factor) for term in terms)
    if name == SUM:
        blocks = _summed_blocks(call, graph)
        terms = tuple(term for block in blocks for term in block)
        return terms if terms and all(blocks) and _are_one_layer(terms) else ()
    return _of_addition(call, graph) if name == ADD else ()


def _of_addition(call: relax.Call, graph: Graph) -> tuple[Term, ...]:
    left, right = (terms_of(argument, graph) for argument in call.args)
    if left and right:
        return (*left, *right) if _are_one_layer((left[0], right[0])) else ()
    zero = evaluate(call.args[1 if left else 0], graph) if left or right else None
    return (left or right) if zero is not None and zero.ndim == 0 and zero == 0 else ()


def _by_channel(value: np.ndarray, channels: int) -> np.ndarray | None:
    """A constant as a number, or as one number of each output channel, float64."""
    if not np.all(np.isfinite(value) & (value != 0)):
        return None
    if value.size == 1:
        return value.reshape(()).astype(np.float64)
    is_by_channel = value.shape[-3:] == (channels, 1, 1) and value.size == channels
    return value.reshape(-1).astype(np.float64) if is_by_channel else None


def _scaled(term: Term, call: relax.Call, factor: np.ndarray) -> Term:
    return replace(term, factor=SCALED[op_name(call)](term.factor, factor))


def _summed_blocks(call: relax.Call, graph: Graph) -> list[tuple[Term, ...]]:
    """Terms of each block that a sum along one axis adds up; empty if they aren't known."""
    if len(call.args[0].ty.shape) != 5 or len(call.attrs.axis or ()) != 1 or call.attrs.keepdims:
        return []
    axis = int(call.attrs.axis[0]) % 5
    expr, factors = graph.definition(call.args[0]), np.ones((1, 1))
    while op_name(expr) in SCALED:
        value = evaluate(expr.args[1], graph)
        factor = None if value is None else _by_block(value, axis)
        if factor is None:
            return []
        factors = factors * SCALED[op_name(expr)](1.0, factor)
        expr = graph.definition(expr.args[0])
    shape = list(map(str, expr.ty.shape))
    source = graph.definition(expr.args[0]) if op_name(expr) == "relax.reshape" else expr
    blocks: list[tuple[Term, ...]] = []
    if op_name(source) == CONV2D and axis == 1:
        blocks = [(term,) for term in _of_convolution(source, graph) if term.axis == 0]
    elif op_name(source) == CONCAT and int(source.attrs.axis) == 0 and axis == 0:
        fields = graph.definition(source.args[0]).fields
        is_stack = all(list(map(str, field.ty.shape)) == shape[1:] for field in fields)
        blocks = [terms_of(field, graph) for field in fields] if is_stack else []
    is_whole = str(expr.ty.shape[axis]) == str(tirx.IntImm("int64", len(blocks)))
    if not is_whole or shape[axis + 1 :] != list(map(str, call.ty.shape))[axis:]:
        return []
    factors = np.broadcast_to(factors, (len(blocks), factors.shape[1]))
    scales = [row if row.size > 1 else row.reshape(()) for row in factors]
    return [
        tuple(replace(term, factor=term.factor * scale) for term in block)
        for block, scale in zip(blocks, scales)
    ]


def _by_block(value: np.ndarray, axis: int) -> np.ndarray | None:
    """A constant as numbers of each block, or of each block and output channel, float64."""
    sizes: list[int] = [1] * (5 - value.ndim) + [*value.shape]
    others = [size for i, size in enumerate(sizes) if i not in (axis, 2)]
    if max(others) > 1 or not np.all(np.isfinite(value) & (value != 0)):
        return None
    return value.reshape(sizes[axis], sizes[2]).astype(np.float64)


def _of_convolution(call: relax.Call, graph: Graph) -> tuple[Term, ...]:
    """A term for each plane that a convolution reads: a sum, or a block of output channels each."""
    layouts = str(call.attrs.data_layout), str(call.attrs.kernel_layout)
    quantizer = weight_quantizer(call, graph)
    if layouts != LAYOUTS[CONV2D] or quantizer is None:
        return ()
    encoding = encoding_of(quantizer)
    if encoding.bits != 1 or np.any(encoding.offset):
        return ()
    planes, groups = _planes_side_by_side(call.args[0], graph), int(call.attrs.groups)
    count = len(planes)
    if count > 1 and groups > 1 and groups % count:
        return ()
    axis = 0 if count > 1 and groups > 1 else 1
    return tuple(
        Term(plane, call, factor, i, count, axis) for i, (plane, factor) in enumerate(planes)
    )


def _planes_side_by_side(expr: relax.Expr, graph: Graph) -> list[tuple[Bits, np.ndarray]]:
    """Planes that are joined along channels, with their factors; empty for anything else."""
    call = graph.definition(expr)
    inner = graph.definition(call.args[0]) if op_name(call) == "relax.astype" else call
    is_cast = op_name(inner) == CONCAT and inner is not call
    call = inner if is_cast else call
    if op_name(call) != CONCAT or int(call.attrs.axis) != 1:
        found = _scaled_plane(expr, graph)
        return [] if found is None else [found]
    fields = graph.definition(call.args[0]).fields
    planes = [_scaled_plane(field, graph) for field in fields]
    channels = {str(field.ty.shape[1]) for field in fields}
    known = [found for found in planes if found is not None]
    is_exact = not is_cast or all(factor == 1 for _, factor in known)
    return known if len(known) == len(fields) and len(channels) == 1 and is_exact else []


def _scaled_plane(expr: relax.Expr, graph: Graph) -> tuple[Bits, np.ndarray] | None:
    """Plane that an expression is, and what it is multiplied by."""
    call, factor = graph.definition(expr), np.ones(())
    if op_name(call) == "relax.multiply":
        value = evaluate(call.args[1], graph)
        if value is None or value.size != 1 or value.reshape(()) == 0:
            return None
        expr, factor = call.args[0], value.reshape(()).astype(np.float64)
    plane = bits_of(expr, graph)
    is_known = plane is not None and plane.is_plane and plane.low < MAX_BITS
    return (plane, factor) if is_known and plane is not None else None


def _are_one_layer(terms: Sequence[Term]) -> bool:
    """Whether convolutions are of planes of one image, under one window."""

    def window(term: Term) -> list[str]:
        call, attrs = term.convolution, term.convolution.attrs
        sizes = [*map(int, call.args[1].ty.shape)]
        sizes[term.axis] //= term.count
        found = term.plane.cast, term.groups, sizes, attrs.strides, attrs.padding, attrs.dilation
        return [*map(str, found)]

    first = terms[0]
    return all(
        term.plane.source.same_as(first.plane.source) and window(term) == window(first)
        for term in terms[1:]
    )
