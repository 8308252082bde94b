"""TVM's fusion of float ops into functions, none of them larger than LLVM compiles in fair time.

Before::

    lv = R.call_tir(cls.add, (x, y), out_ty)
    lv1 = R.call_tir(cls.relu, (lv,), out_ty)

After::

    lv1 = cls.fused_add_relu(x, y)

Every op of a function has a loop and a buffer of its own, and LLVM's time grows faster than their
number: a function of 256 ops, TVM's limit, takes it many seconds.
"""

from __future__ import annotations

import tvm
from tvm import relax

from .options import with_options

MAX_OPS = 32
_OPTION = "relax.FuseOps.max_depth"


@tvm.transform.module_pass(opt_level=0, name="bitenc.FuseOps")
class FuseOps:
    """Fuse up to `MAX_OPS` ops into a function, or as many as the pass context allows."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        with with_options({_OPTION: MAX_OPS}):
            return relax.transform.FuseOps()(mod)
