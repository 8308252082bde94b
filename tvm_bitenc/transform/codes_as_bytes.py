"""Between layers that multiply bytes, codes travel as bytes: nobody packs and unpacks planes.

Before::

    planes = bitenc.pack(codes)                             # codes: uint8 NHWC
    a = bitenc.packed_conv2d(planes, w, o, t, d)            # strategy="int8", ends in planes
    b = bitenc.packed_conv2d(a, w, o)                       # strategy="int8"

After::

    a = bitenc.packed_conv2d(codes, w, o, t, d)             # source="bytes", ending="bytes"
    b = bitenc.packed_conv2d(a, w, o)                       # source="bytes"

What only moves pixels or channels, and pools, goes along. Where one reader of a tensor wants
planes, or one tensor that it is joined with stays planes, all stay so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import tvm
from tvm import relax

from ..op.packed import (
    BYTES,
    conv_layer_of,
    pack,
    pack_op,
    packed_conv2d_op,
    packed_max_pool2d_op,
    takes_codes,
    unpack_op,
)
from ..op.packed_channels import bytes_concat, packed_concat_op
from ..op.registration import is_call_to, make_call, with_attributes
from ..records.decision import decided, record_of
from ..records.file import NO_RECORDS, Records
from ..schedule import find_space
from ..target import Target
from .analysis.float32 import op_name
from .rewrite import Graph, merge_equal, rewrite_calls
from .visit import visit_calls

PLANES_NDIM = 5  # N, H, W, bits, words.
CHANNEL_AXIS = 3


@tvm.transform.module_pass(opt_level=0, name="bitenc.CodesAsBytes")
@dataclass(frozen=True)
class CodesAsBytes:
    """Leave codes in bytes where all who make and read them can do with bytes.

    Parameters
    ----------
    target : Target
    records : Records
        One of the convolution on bytes goes before one of the convolution on planes.
    """

    target: Target
    records: Records = NO_RECORDS

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        if not _has_int8(mod):
            return mod
        mod = merge_equal(mod)
        flow = _Flow(mod, self.target)
        chosen = flow.chosen()

        def rewrite(call: relax.Call, graph: Graph) -> relax.Expr | None:
            if is_call_to(call, packed_conv2d_op):
                return self._convolution(call, graph, flow, graph.var in chosen)
            if is_call_to(call, unpack_op):
                return codes_of(call.args[0], graph)
            if graph.var in chosen and not is_call_to(call, pack_op):
                return pack(graph.emit(MOVERS[op_name(call)](call, graph)), _bits(call))
            return None

        return rewrite_calls(mod, rewrite)

    def _convolution(
        self, call: relax.Call, graph: Graph, flow: _Flow, ends_in_bytes: bool
    ) -> relax.Expr | None:
        """Return a convolution on bytes, or one that ends in bytes, which are packed then."""
        bits, source = _bits(call), codes_of(call.args[0], graph)
        attributes, arguments = {}, list(call.args)
        if source is not None and graph.var in flow.begins:
            attributes["source"], arguments[0] = BYTES, source
        if ends_in_bytes:
            attributes["ending"] = BYTES
        if not attributes:
            return None
        attributes = {**dict(call.attrs.items()), **attributes}
        found = graph.typed(make_call(packed_conv2d_op, arguments, **attributes))
        strategy = str(call.attrs["strategy"])
        if record_of(found, self.target, self.records, strategy) is not None:
            found = decided(found, strategy, self.target, self.records)
        return pack(graph.emit(found), bits) if ends_in_bytes else found


def codes_of(planes: relax.Expr, graph: Graph) -> relax.Expr | None:
    """Return the codes (uint8 NHWC) that planes are packed from, None if they aren't."""
    made = graph.definition(planes)
    is_packed = is_call_to(made, pack_op) and int(made.attrs["groups"]) == 1
    return made.args[0] if is_packed else None


def required_codes(planes: relax.Expr, graph: Graph) -> relax.Expr:
    """Return the codes of planes that are packed from some."""
    codes = codes_of(planes, graph)
    assert codes is not None  # Their maker was asked for bytes.
    return codes


def _bits(planes: relax.Expr) -> int:
    return int(planes.ty.shape[3]) if _is_planes(planes) else 0


def _has_int8(mod: tvm.IRModule) -> bool:
    found: list[bool] = []

    def see(call: relax.Call, _graph: Graph) -> None:
        if is_call_to(call, packed_conv2d_op):
            found.append(str(call.attrs["strategy"]) == "int8")

    visit_calls(mod, see)
    return any(found)


POOL = ("pool_size", "strides", "padding", "dilation")


def pool_of_bytes(pool: relax.Call, codes: relax.Expr) -> relax.Call | None:
    """Return a pool of planes on bytes, None if TVM has none of this size.

    Padding never wins in either: it is the least code.
    """
    attrs = {name: list(map(int, pool.attrs[name])) for name in POOL}
    wanted = list(map(int, pool.attrs["out_size"]))
    for ceil_mode in (False, True):  # The last window is whole, or may be cut off.
        call = relax.op.nn.max_pool2d(codes, **attrs, ceil_mode=ceil_mode, layout="NHWC")
        call = relax.BlockBuilder().normalize(call)
        _, *out_size, _ = call.ty.shape
        if list(map(int, out_size)) == wanted:
            return call
    return None


def _pooled(call: relax.Call, graph: Graph) -> relax.Expr:
    found = pool_of_bytes(call, required_codes(call.args[0], graph))
    assert found is not None  # See `_Flow._can_end`.
    return found


def _taken(call: relax.Call, graph: Graph) -> relax.Expr:
    codes, axis = required_codes(call.args[0], graph), int(call.attrs.axis)
    return relax.op.take(codes, call.args[1], axis, str(call.attrs.mode))


def _joined(call: relax.Call, graph: Graph) -> relax.Expr:
    return bytes_concat([required_codes(part, graph) for part in _planes_of(call)])


# What becomes of calls that move codes: pixels lie along the same axes, channels along one.
MOVERS: dict[str, Callable[[relax.Call, Graph], relax.Expr]] = {
    "relax.take": _taken,
    "relax.concat": _joined,
    packed_concat_op.name: _joined,
    packed_max_pool2d_op.name: _pooled,
}


class _Flow:
    """Who makes planes and who reads them.

    Parameters
    ----------
    mod : tvm.IRModule
    target : Target
    """

    def __init__(self, mod: tvm.IRModule, target: Target):
        self.target = target
        self.makers: dict[relax.Var, relax.Call] = {}
        self.readers: dict[relax.Var, list[tuple[relax.Call, relax.Var | None]]] = defaultdict(list)
        self.begins: set[relax.Var | None] = set()  # Convolutions that can read bytes.
        self.kept = _kept(mod)
        visit_calls(mod, self._see)

    def _see(self, call: relax.Call, graph: Graph) -> None:
        if graph.var is not None and _is_planes(graph.var):
            self.makers[graph.var] = call
        if is_call_to(call, packed_conv2d_op) and self._can_begin(call):
            self.begins.add(graph.var)
        for var in _planes_of(call):
            self.readers[var].append((call, graph.var))

    def chosen(self) -> set[relax.Var]:
        """Return the variables that can all be bytes at once: the largest such set."""
        left = {
            var
            for var, call in self.makers.items()
            if self._can_end(call) and all(self._can_take(*reader) for reader in self.readers[var])
        }
        left -= self.kept
        while True:
            staying = {var for var in left if self._goes_along(var, left)}
            if staying == left:
                return left
            left = staying

    def _goes_along(self, var: relax.Var, left: set[relax.Var]) -> bool:
        """Whether all tensors that only move the same codes can be bytes, too."""
        maker = self.makers[var]
        sources = _planes_of(maker) if op_name(maker) in MOVERS else []
        moved = [result for reader, result in self.readers[var] if op_name(reader) in MOVERS]
        return left.issuperset([*sources, *moved])

    def _can_end(self, call: relax.Call) -> bool:
        """Whether the result of a call can be bytes."""
        name = op_name(call)
        if is_call_to(call, packed_conv2d_op):
            return self._has_kernel(with_attributes(call, ending=BYTES))
        if is_call_to(call, pack_op):
            return int(call.attrs["groups"]) == 1
        if name == "relax.concat":
            return int(call.attrs.axis) == PLANES_NDIM - 1
        if name == "relax.take":
            return call.attrs.axis is not None and 0 <= int(call.attrs.axis) < CHANNEL_AXIS
        if is_call_to(call, packed_max_pool2d_op):
            return pool_of_bytes(call, _bytes_like(call.args[0], 1)) is not None
        return name in MOVERS

    def _can_take(self, call: relax.Call, result: relax.Var | None) -> bool:
        """Whether a call can read bytes; of those that move codes, see `_can_end`."""
        if is_call_to(call, unpack_op):
            return int(call.attrs["groups"]) == 1
        if is_call_to(call, packed_conv2d_op):
            return result in self.begins
        return op_name(call) in MOVERS

    def _can_begin(self, call: relax.Call) -> bool:
        """Whether there is a kernel of a convolution on bytes in place of planes."""
        if takes_codes(call) or str(call.attrs["strategy"]) != "int8":
            return False
        codes = _bytes_like(call.args[0], conv_layer_of(call).input_shape[CHANNEL_AXIS])
        attributes = {**dict(call.attrs.items()), "source": BYTES}
        return self._has_kernel(make_call(packed_conv2d_op, [codes, *call.args[1:]], **attributes))

    def _has_kernel(self, call: relax.Call) -> bool:
        return find_space(relax.BlockBuilder().normalize(call), self.target) is not None


def _kept(mod: tvm.IRModule) -> set[relax.Var]:
    """Variables that something else than a call reads, such as the end of a function."""
    found: list[relax.Expr] = []

    def see(expr: relax.Expr) -> None:
        if isinstance(expr, relax.SeqExpr):
            values = [binding.value for block in expr.blocks for binding in block.bindings]
            for value in (expr.body, *values):
                found.extend(value.fields if isinstance(value, relax.Tuple) else [value])

    for function in mod.functions.values():
        if isinstance(function, relax.Function):
            relax.analysis.post_order_visit(function, see)
    return {expr for expr in found if isinstance(expr, relax.Var)}


def _bytes_like(planes: relax.Expr, channels: int) -> relax.Var:
    """A variable of bytes with the pixels of planes."""
    pixels = list(planes.ty.shape)[:CHANNEL_AXIS]
    return relax.Var("codes", relax.TensorType([*pixels, channels], "uint8"))


def _is_planes(expr: relax.Expr) -> bool:
    ty = expr.ty
    is_words = isinstance(ty, relax.TensorType) and str(ty.dtype) == "uint64"
    return is_words and ty.ndim == PLANES_NDIM


def _planes_of(call: relax.Call) -> list[relax.Var]:
    """Variables of planes among the arguments of a call."""
    found = []
    for argument in call.args:
        parts = argument.fields if isinstance(argument, relax.Tuple) else [argument]
        found += [part for part in parts if isinstance(part, relax.Var) and _is_planes(part)]
    return found
