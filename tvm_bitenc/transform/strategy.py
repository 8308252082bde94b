"""Pass 6: each convolution is told how its branch sum is computed.

Before::

    out = bitenc.packed_conv2d(planes, w, o, t, d)  # strategy=""

After::

    out = bitenc.packed_conv2d(planes, w, o, t, d)  # strategy="xnor"
"""

from __future__ import annotations

import tvm
from tvm import relax

from ..errors import UnsupportedError
from ..op.packed import packed_conv2d_op
from ..op.registration import is_call_to, with_attributes
from .rewrite import rewrite_calls

STRATEGIES = ("xnor",)


@tvm.transform.module_pass(opt_level=0, name="bitenc.Strategy")
class Strategy:
    """Choose a kernel strategy for every layer.

    Parameters
    ----------
    strategy : {"auto", "xnor"}

    Raises
    ------
    UnsupportedError
        For an unknown strategy.
    """

    def __init__(self, strategy: str = "auto"):
        if strategy not in ("auto", *STRATEGIES):
            raise UnsupportedError(
                f"strategy {strategy!r}", "isn't known", f"Use 'auto' or one of {STRATEGIES}"
            )
        self.strategy = "xnor" if strategy == "auto" else strategy

    def transform_module(self, mod: tvm.IRModule, _ctx) -> tvm.IRModule:
        """Rewrite the module."""

        def choose(call: relax.Call, _graph) -> relax.Expr | None:
            if not is_call_to(call, packed_conv2d_op):
                return None
            return with_attributes(call, strategy=self.strategy)

        return rewrite_calls(mod, choose)
