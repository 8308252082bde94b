"""Packed ops become kernels, scheduled by the target's rules.

Before::

    out = bitenc.packed_conv2d(planes, w, o, t, d)  # layer="conv1", strategy="xnor"

After::

    out = R.call_tir(cls.packed_conv2d_conv1_xnor, (planes, w_blocked, border, ...), out_ty)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import tvm
from tvm import relax
from tvm.ir import Op

from ..errors import TargetError
from ..op import packed
from ..op.registration import describe
from ..records.decision import origin_of, tile_of
from ..schedule import Kernel, find_kernel, find_space
from ..target import Target
from .rewrite import Graph, rewrite_calls

OPAQUE = 8  # TVM's pattern kind of a function that must not be fused with others.


@tvm.transform.module_pass(opt_level=0, name="bitenc.Schedule")
@dataclass(frozen=True)
class Schedule:
    """Replace every packed op by a call to a scheduled function.

    Parameters
    ----------
    target : Target
    """

    target: Target

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""

        def schedule(call: relax.Call, graph: Graph) -> relax.Expr | None:
            if not isinstance(call.op, Op) or call.op.name not in packed.OPS:
                return None
            kernel = kernel_of(call, self.target)
            function = kernel.function.without_attr("global_symbol")
            function = function.with_attr("op_pattern", OPAQUE)
            function = function.with_attr("tirx.is_scheduled", True)
            tensors = packed.tensor_inputs(call)
            constants = [relax.const(value, str(value.dtype)) for value in kernel.constants]
            return graph.call_kernel(function, [*tensors, *constants], call.ty, _kernel_name(call))

        return rewrite_calls(mod, schedule)


def kernel_of(call: relax.Call, target: Target) -> Kernel:
    """Make the kernel that was decided on.

    Raises
    ------
    TargetError
        If the target has none.
    """
    tile = tile_of(call)
    if tile is None:
        return find_kernel(call, target)
    space = find_space(call, target)
    kernel = space.kernel(tile) if space is not None and space.allows(tile) else None
    if kernel is None:
        raise TargetError(
            describe(call), f"has no kernel for its {origin_of(call)}", "Build with database=False"
        )
    return kernel


def _kernel_name(call: relax.Call) -> str:
    """Name the kernel after op and layer, as benchmarks and dumps show it."""
    attributes = [str(call.attrs.get(key, "")) for key in ("layer", "strategy")]
    return re.sub(r"\W", "_", "_".join(filter(None, [call.op.name.split(".")[-1], *attributes])))
