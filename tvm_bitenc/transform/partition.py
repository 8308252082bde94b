"""Layers that the accelerator supports are cut out, for its code generator.

Before::

    def main(planes):
        out = bitenc.packed_conv2d(planes, w, o, t, d)

After::

    def fused(planes):  # Codegen="bitenc_vta"
        def composite(planes):  # Composite="bitenc_vta.conv2d"
            return bitenc.packed_conv2d(planes, w, o, t, d)
        return composite(planes)

    def main(planes):
        out = fused(planes)

A layer that stays keeps the reason in its attribute ``cpu_reason``.
"""

from __future__ import annotations

from collections.abc import Mapping

import tvm
from tvm import relax
from tvm.relax.dpl import is_op, wildcard
from tvm.relax.transform import PatternCheckContext

from ..errors import UnsupportedError
from ..op.packed import packed_conv2d_op
from ..op.registration import is_call_to, with_attributes
from ..target import Target
from ..vta.codegen import NAME, program_of
from .rewrite import rewrite_calls

REASON = "cpu_reason"
OTHERS = "*"


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
        self.target = target
        self.by_layer = {OTHERS: strategy} if isinstance(strategy, str) else dict(strategy)

    def transform_module(self, mod: tvm.IRModule, _ctx) -> tvm.IRModule:
        """Rewrite the module."""

        def decide(call: relax.Call, _graph) -> relax.Expr | None:
            if not is_call_to(call, packed_conv2d_op):
                return None
            return with_attributes(call, **{REASON: self._reason(call)})

        pattern = is_op(packed_conv2d_op.name)(wildcard(), varg_default_wildcard=True)
        patterns = [(f"{NAME}.conv2d", pattern, {}, _is_supported)]
        fuse = relax.transform.FuseOpsByPattern(patterns, annotate_codegen=True)
        return fuse(rewrite_calls(mod, decide))

    def _reason(self, call: relax.Call) -> str:
        """Why a layer can't run on the accelerator; empty if it can."""
        wanted = self.by_layer.get(str(call.attrs["layer"]), self.by_layer.get(OTHERS, "auto"))
        if wanted != "auto":
            return f"strategy {wanted!r} was asked for"
        try:
            program_of(call, self.target.accelerator)
        except UnsupportedError as error:
            return f"{error.cause}. {error.cure}"
        return ""


def _is_supported(context: PatternCheckContext) -> bool:
    return not str(context.matched_expr.attrs[REASON])
