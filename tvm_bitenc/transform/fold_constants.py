"""Constants are computed while compiling, but never by a kernel that is scheduled for the target.

`relax.transform.FoldConstant` compiles what it runs for LLVM's plain CPU, whatever the target. A
scheduled kernel calls instructions of the target by name, and LLVM ends the process where it meets
one that the plain CPU lacks. So those kernels are out of its sight, and run with the model.
"""

from __future__ import annotations

import tvm
from tvm import relax, tirx


@tvm.transform.module_pass(opt_level=0, name="bitenc.FoldConstants")
class FoldConstants:
    """Fold calls whose arguments are constants, unless they are calls of scheduled kernels."""

    def transform_module(self, mod: tvm.IRModule, _ctx) -> tvm.IRModule:
        """Rewrite the module."""
        functions = dict(mod.functions_items())
        scheduled = {var: f for var, f in functions.items() if is_scheduled(f)}
        others = {var: f for var, f in functions.items() if var not in scheduled}
        folded = relax.transform.FoldConstant()(tvm.IRModule(others, attrs=mod.attrs))
        for global_var, function in scheduled.items():
            folded[global_var] = function
        return folded


def is_scheduled(function: tvm.ir.BaseFunc) -> bool:
    """Whether a function is a kernel of a schedule rule."""
    if not isinstance(function, tirx.PrimFunc) or not function.attrs:
        return False
    return bool(function.attrs.get("tirx.is_scheduled", False))
