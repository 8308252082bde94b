"""TVM's external code generator ``bitenc_vta``: what `transform.partition` cut out, as programs.

`relax.transform.RunCodegen` calls `codegen` with the functions that carry the attribute
``Codegen = "bitenc_vta"``. Each becomes a program of the accelerator, inside a small function of
the CPU with the same name, which gives it to `runtime.run`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tvm
from tvm import relax, te, tirx

from ..target import Target
from .offloaded import PROGRAM
from .runtime import RUN

NAME = "bitenc_vta"


def run_codegen(target: Target) -> tvm.ir.transform.Pass:
    """Return TVM's pass that calls `codegen`."""
    return relax.transform.RunCodegen({NAME: {"simulator": target.simulator}})


@tvm.register_global_func(f"relax.ext.{NAME}", override=True)
def codegen(
    functions: Sequence[relax.Function], options: Mapping, _constant_names: Mapping
) -> list[tvm.runtime.Module]:
    """Compile functions that were cut out.

    Parameters
    ----------
    functions : sequence of relax.Function
    options : mapping
        ``simulator``.

    Returns
    -------
    list of tvm.runtime.Module
        One per function, with a function of its global symbol.
    """
    return [_host_function(each, str(options["simulator"])) for each in functions]


def _host_function(function: relax.Function, simulator: str) -> tvm.runtime.Module:
    symbol, text = str(function.attrs["global_symbol"]), str(function.attrs[PROGRAM])
    inputs = [te.placeholder(list(x.ty.shape), str(x.ty.dtype), x.name) for x in function.params]
    results = function.ret_ty.fields if isinstance(function.ret_ty, relax.TupleType) else None
    types = [function.ret_ty] if results is None else list(results)

    def call(ins: Sequence[tirx.Buffer], outs: Sequence[tirx.Buffer]) -> tirx.Expr:
        return tirx.call_packed(RUN, *ins, simulator, text, *outs)

    shapes, dtypes = [list(x.shape) for x in types], [str(x.dtype) for x in types]
    made = te.extern(shapes, inputs, call, dtype=dtypes, name="output")
    outputs = [made] if len(types) == 1 else list(made)
    host = te.create_prim_func([*inputs, *outputs]).with_attr("global_symbol", symbol)
    return tvm.compile(tvm.IRModule({symbol: host}), target="llvm").mod
