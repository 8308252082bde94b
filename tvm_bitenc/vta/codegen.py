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
from .offloaded import PROGRAM, offloaded
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
    part, symbol = offloaded(function), str(function.attrs["global_symbol"])
    strings = part.name, simulator, str(function.attrs[PROGRAM])
    inputs = [te.placeholder(list(x.ty.shape), str(x.ty.dtype), x.name) for x in function.params]

    def call(ins: Sequence[tirx.Buffer], outs: Sequence[tirx.Buffer]) -> tirx.Expr:
        operands = [ins[position] for position in part.operands]
        return tirx.call_packed(RUN, *operands, *strings, outs[0])

    output = te.extern(
        list(function.ret_ty.shape), inputs, call, dtype=str(function.ret_ty.dtype), name="output"
    )
    host = te.create_prim_func([*inputs, output]).with_attr("global_symbol", symbol)
    return tvm.compile(tvm.IRModule({symbol: host}), target="llvm").mod
