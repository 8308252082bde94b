"""Float arithmetic joins the convolution whose accumulators only it reads.

Before::

    acc = bitenc.packed_conv2d(planes, w, o)           # int32 NHWC
    y = R.multiply(R.astype(acc, "float32"), scale)
    y1 = R.add(bitenc.multiply_add(y, alpha, beta), shortcut)

After::

    y1 = bitenc.packed_conv2d(planes, shortcut, w, o, scale, alpha, beta)
         # steps=["astype", "multiply", "multiply_add", "residual"]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from ..layer import RESIDUAL, STEP_CONSTANTS, ConvLayer
from ..op.packed import conv_layer_of, packed_conv2d_op, with_step
from ..op.registration import is_call_to
from .analysis.float32 import evaluate, op_name
from .fuse_epilogue import use_counts
from .rewrite import Graph, rewrite_calls

MAX_STEPS = 32  # Of one convolution: its kernel has code of its own for each.


@tvm.transform.module_pass(opt_level=0, name="bitenc.FuseFloat")
class FuseFloat:
    """Fuse one op after another, until none is left that can be."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        return fuse_steps(mod)


def fuse_steps(
    mod: tvm.IRModule, fits: Callable[[ConvLayer], bool] = lambda _layer: True
) -> tvm.IRModule:
    """Fuse one op after another, as long as the layer that comes of it fits."""
    uses = use_counts(mod)

    def fuse(call: relax.Call, graph: Graph) -> relax.Expr | None:
        fused = _fused(call, graph, uses)
        if fused is None or not fits(conv_layer_of(fused)):
            return None
        # Under a variable of its own, which the next op then finds in `uses`.
        var = graph.emit(fused)
        uses[var] = uses.get(graph.var, 0)
        return var

    return rewrite_calls(mod, fuse)


_LIMITS = ("clip", "maximum", "minimum")  # As steps, they expect a number.


def _fused(call: relax.Call, graph: Graph, uses: dict) -> relax.Expr | None:
    name, constants = op_name(call).rpartition(".")[2], None
    if name == "relu":
        name, constants = "maximum", [np.float32(0)]
    elif name == "leakyrelu":
        name, constants = "prelu", [np.float32(call.attrs.alpha)]
    elif name not in STEP_CONSTANTS:
        return None
    for i, argument in enumerate(call.args):
        convolution = graph.definition(argument)
        if not is_call_to(convolution, packed_conv2d_op) or uses.get(argument, 0) != 1:
            continue
        commutes = name in ("add", "multiply", "maximum", "minimum")
        layer = conv_layer_of(convolution)
        if layer.thresholds is not None or len(layer.steps) == MAX_STEPS:
            continue
        if i > 0 and not commutes:
            continue
        others = [other for j, other in enumerate(call.args) if j != i]
        return _with(convolution, name, constants, others, call, graph)
    return None


def _with(
    convolution: relax.Call,
    name: str,
    constants: Sequence[np.ndarray | np.float32 | None] | None,
    others: Sequence[relax.Expr],
    call: relax.Call,
    graph: Graph,
) -> relax.Call | None:
    layer = conv_layer_of(convolution)
    if (name == "astype") == bool(layer.steps):
        return None  # Integers become float first, and only once.
    if name == "astype":
        return with_step(convolution, name, []) if str(call.ty.dtype) == "float32" else None
    if constants is None:
        constants = [evaluate(other, graph) for other in others]
    if name == "add" and constants[0] is None:
        (other,) = others
        if layer.has_residual or not _same_shape(other.ty, convolution.ty):
            return None
        return with_step(convolution, RESIDUAL, [], other)
    known = [np.asarray(value) for value in constants if value is not None]
    if len(known) < len(constants) or any(v.size not in (1, layer.out_channels) for v in known):
        return None
    if name in _LIMITS and any(np.isnan(value).any() for value in known):
        return None
    shape = (layer.out_channels,)
    values = [
        np.ascontiguousarray(np.broadcast_to(value.astype(np.float32).reshape(-1), shape))
        for value in known
    ]
    return with_step(convolution, name, values)


def _same_shape(a: relax.Type, b: relax.Type) -> bool:
    return str(a.dtype) == str(b.dtype) and tvm_ffi.structural_equal(a.shape, b.shape)
