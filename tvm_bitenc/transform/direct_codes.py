"""A first layer of few channels reads codes as its encoder leaves them.

Before::

    planes = bitenc.pack(R.permute_dims(codes, NHWC))   # 3 channels fill 3 bits of each word
    out = bitenc.packed_conv2d(planes, w, o)            # strategy="int8"

After::

    out = bitenc.packed_conv2d(codes, w, o)             # uint8 NCHW
"""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax

from ..op.packed import pack_op, packed_conv2d_op
from ..op.registration import is_call_to, make_call
from ..records.decision import decided
from ..records.file import NO_RECORDS, Records
from ..schedule import find_space
from ..target import Target
from .analysis.float32 import op_name
from .layout import NHWC
from .rewrite import Graph, rewrite_calls


@tvm.transform.module_pass(opt_level=0, name="bitenc.DirectCodes")
@dataclass(frozen=True)
class DirectCodes:
    """Leave out packing where the target has a kernel that takes codes.

    Parameters
    ----------
    target : Target
    records : Records
        Those of convolutions on codes aren't those of convolutions on planes.
    """

    target: Target
    records: Records = NO_RECORDS

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""

        def rewrite(call: relax.Call, graph: Graph) -> relax.Expr | None:
            codes = _codes_of(call, graph)
            if codes is None:
                return None
            direct = graph.typed(
                make_call(packed_conv2d_op, [codes, *call.args[1:]], **dict(call.attrs.items()))
            )
            if find_space(direct, self.target) is None:
                return None  # Planes suit every target.
            return decided(direct, str(call.attrs["strategy"]), self.target, self.records)

        return rewrite_calls(mod, rewrite)


def _codes_of(call: relax.Call, graph: Graph) -> relax.Expr | None:
    """Return the NCHW codes that an int8 convolution's planes are packed from."""
    if not is_call_to(call, packed_conv2d_op) or str(call.attrs["strategy"]) != "int8":
        return None
    pack = graph.definition(call.args[0])
    if not is_call_to(pack, pack_op):
        return None
    permute = graph.definition(pack.args[0])
    if op_name(permute) != "relax.permute_dims" or list(permute.attrs.axes or ()) != NHWC:
        return None
    return permute.args[0]
