"""A threshold unit joins the convolution whose accumulators only it reads.

Before::

    acc = bitenc.packed_conv2d(planes, w, o)             # int32 NHWC
    out = bitenc.packed_threshold(acc, t, d)             # uint64 planes

After::

    out = bitenc.packed_conv2d(planes, w, o, t, d)       # planes to planes, in one kernel
"""

from __future__ import annotations

import tvm
from tvm import relax

from ..op.packed import packed_conv2d_op, packed_threshold_op
from ..op.registration import is_call_to, make_call
from ..op.threshold import code_step_names
from .analysis.readers import readers_of
from .rewrite import Graph, is_external, rewrite_calls


@tvm.transform.module_pass(opt_level=0, name="bitenc.FuseEpilogue")
class FuseEpilogue:
    """Fuse thresholds into the convolution before them."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        uses = use_counts(mod)

        def fuse(call: relax.Call, graph: Graph) -> relax.Expr | None:
            if not is_call_to(call, packed_threshold_op):
                return None
            convolution = graph.definition(call.args[0])
            if not is_call_to(convolution, packed_conv2d_op) or uses.get(call.args[0], 0) != 1:
                return None
            return make_call(
                packed_conv2d_op,
                [*convolution.args, *call.args[1:]],
                **{**dict(convolution.attrs.items()), **code_step_names(call)},
            )

        return rewrite_calls(mod, fuse)


def use_counts(mod: tvm.IRModule) -> dict[relax.Var, int]:
    """How many bindings read each variable; to be a result counts as well."""
    return {
        var: len(readers)
        for function in mod.functions.values()
        if isinstance(function, relax.Function) and not is_external(function)
        for var, readers in readers_of(function).items()
    }
