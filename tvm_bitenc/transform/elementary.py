"""Exponentials and their like become arithmetic that vectors have, the same on every CPU.

Before::

    y[i] = T.exp(x[i] - largest[0])

After::

    with T.Let(x[i] - largest[0], value): y[i] = ...  # `te.elementary.exp`

Otherwise each is a call of the C library, one number at a time, and its last bits depend on it.
"""

from __future__ import annotations

import tvm

from ..te import elementary
from .fold_constants import is_scheduled
from .loops import map_bodies

FUNCTIONS = {
    "tirx.exp": elementary.exp,
    "tirx.erf": elementary.erf,
    "tirx.tanh": elementary.tanh,
    "tirx.sigmoid": elementary.sigmoid,
}


@tvm.transform.module_pass(opt_level=0, name="bitenc.Elementary")
class Elementary:
    """Write elementary functions of float32 as polynomials."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        return map_bodies(mod, (tvm.ir.Call, _written_out), unless=is_scheduled)


def _written_out(call: tvm.ir.Call) -> tvm.ir.Expr:
    function = FUNCTIONS.get(getattr(call.op, "name", ""))
    if function is None or str(call.ty) != elementary.FLOAT:
        return call
    return function(call.args[0])
