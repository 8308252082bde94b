"""What the accelerator supports is cut out, for its code generator.

Before::

    def main(planes, residual):
        codes = bitenc.packed_conv2d(planes, w, o, t, d)
        out = bitenc.packed_lookup(codes, residual, table)

After::

    def fused(planes, residual):  # Codegen="bitenc_vta"
        def composite(planes, residual):  # Composite="bitenc_vta.residual"
            codes = bitenc.packed_conv2d(planes, w, o, t, d)
            return bitenc.packed_lookup(codes, residual, table)
        return composite(planes, residual)

    def main(planes, residual):
        out = fused(planes, residual)

A convolution or pooling that stays keeps the reason in its attribute ``cpu_reason``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tvm
from tvm import relax
from tvm.relax.backend.utils import has_leaking_intermediate_variables
from tvm.relax.dpl import DFPattern, is_const, is_op, wildcard
from tvm.relax.transform import PatternCheckContext

from ..accelerator import Accelerator
from ..errors import UnsupportedError
from ..op.lookup import packed_lookup_op
from ..op.packed import packed_conv2d_op, packed_max_pool2d_op
from ..op.registration import is_call_to, with_attributes
from ..strategy import AUTO, OTHERS, by_layer
from ..target import Target
from ..vta.codegen import NAME
from ..vta.offloaded import Offloaded, fused_lookup
from .rewrite import Graph, rewrite_calls

REASON = "cpu_reason"


@tvm.transform.module_pass(opt_level=0, name="bitenc.Partition")
class Partition:
    """Cut out what the accelerator supports.

    Parameters
    ----------
    target : Target
        With an accelerator.
    strategy : str or mapping
        As for `Strategy`; a layer with one that isn't ``"auto"`` stays on the CPU.
    """

    def __init__(self, target: Target, strategy: str | Mapping[str, str] = "auto"):
        self.accelerator = target.accelerator
        self.by_layer = by_layer(strategy)

    def transform_module(self, mod: tvm.IRModule, _ctx) -> tvm.IRModule:
        """Rewrite the module."""
        pools = 0

        def decide(call: relax.Call, graph: Graph) -> relax.Expr | None:
            nonlocal pools
            if is_call_to(call, packed_conv2d_op):
                return with_attributes(call, **{REASON: self._reason(call)})
            if is_call_to(call, packed_max_pool2d_op):
                call = with_attributes(call, layer=f"max_pool{pools}")
                pools += 1
                return with_attributes(call, **{REASON: self._reason(call)})
            return None

        fuse = relax.transform.FuseOpsByPattern(patterns(self.accelerator), annotate_codegen=True)
        return fuse(rewrite_calls(mod, decide))

    def _reason(self, call: relax.Call) -> str:
        """Why a call can't run on the accelerator; empty if it can."""
        wanted = self.by_layer.get(str(call.attrs["layer"]), self.by_layer[OTHERS])
        if wanted != AUTO:
            return f"strategy {wanted!r} was asked for"
        try:
            Offloaded(call).program(self.accelerator)
        except UnsupportedError as error:
            return f"{error.cause}. {error.cure}"
        return ""


def patterns(
    accelerator: Accelerator,
) -> list[tuple[str, DFPattern, dict, Callable[[PatternCheckContext], bool]]]:
    """What `FuseOpsByPattern` looks for, the largest first."""

    def fits(context: PatternCheckContext) -> bool:
        return _table_fits(context, accelerator)

    def convolution() -> DFPattern:
        return is_op(packed_conv2d_op.name)(wildcard(), varg_default_wildcard=True)

    def lookup(*operands: DFPattern) -> DFPattern:
        return is_op(packed_lookup_op.name)(*operands, is_const())

    pool = is_op(packed_max_pool2d_op.name)(wildcard())
    return [
        (f"{NAME}.residual", lookup(convolution(), wildcard()), {}, fits),
        (f"{NAME}.residual", lookup(wildcard(), convolution()), {}, fits),
        (f"{NAME}.table", lookup(convolution()), {}, fits),
        (f"{NAME}.conv2d", convolution(), {}, _is_supported),
        (f"{NAME}.max_pool2d", pool, {}, _is_supported),
    ]


def _is_supported(context: PatternCheckContext) -> bool:
    return not str(context.matched_expr.attrs[REASON])


def _table_fits(context: PatternCheckContext, accelerator: Accelerator) -> bool:
    """Whether a convolution and the table behind it, which alone reads it, make one program."""
    if has_leaking_intermediate_variables(context):
        return False
    part = fused_lookup(context.matched_expr, context.matched_bindings.get, lambda _expr: 0)
    if str(part.call.attrs[REASON]):
        return False
    try:
        part.program(accelerator)
    except UnsupportedError:
        return False
    return True
