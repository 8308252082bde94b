"""TVM's external code generator ``bitenc_vta``: what `transform.partition` cut out, as programs.

`relax.transform.RunCodegen` calls `codegen` with the functions that carry the attribute
``Codegen = "bitenc_vta"``. Each becomes a program of the accelerator, inside a small function of
the CPU with the same name, which gives it to `runtime.run`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import tvm
from tvm import relax, te, tirx

from ..op.packed import conv_layer_of, packed_conv2d_op
from ..op.registration import is_call_to
from ..target import Target
from ..te.conv_layer import ConvLayer
from .binary import dumps
from .compile_layer import compile_conv
from .config import Accelerator
from .program import Program
from .runtime import RUN

NAME = "bitenc_vta"
CODEGEN = "Codegen"  # TVM's attribute of functions for an external code generator.


def run_codegen(target: Target) -> tvm.ir.transform.Pass:
    """Return TVM's pass that calls `codegen`."""
    options = {"simulator": target.simulator, **asdict(target.accelerator)}
    return relax.transform.RunCodegen({NAME: options})


@tvm.register_global_func(f"relax.ext.{NAME}", override=True)
def codegen(
    functions: Sequence[relax.Function], options: Mapping, _constant_names: Mapping
) -> list[tvm.runtime.Module]:
    """Compile functions that were cut out.

    Parameters
    ----------
    functions : sequence of relax.Function
    options : mapping
        ``simulator``, and the sizes of the `Accelerator`.

    Returns
    -------
    list of tvm.runtime.Module
        One per function, with a function of its global symbol.
    """
    sizes = {str(name): value for name, value in options.items()}
    simulator = str(sizes.pop("simulator"))
    accelerator = Accelerator(**{name: int(value) for name, value in sizes.items()})
    return [_host_function(each, accelerator, simulator) for each in functions]


def accelerated(function: relax.Function) -> relax.Call:
    """Return the call that a function which was cut out consists of."""
    found: list[relax.Call] = []

    def note(expr: relax.Expr) -> None:
        if is_call_to(expr, packed_conv2d_op):
            found.append(expr)

    relax.analysis.post_order_visit(function.body, note)
    return found[0]


def sample_of(layer: ConvLayer) -> ConvLayer:
    """Return the layer on one sample: a program runs once for each of a batch."""
    shape = (1, *layer.input_shape[1:])
    return replace(layer, input_shape=shape, has_dynamic_batch=False)


def program_of(call: relax.Call, accelerator: Accelerator) -> Program:
    """Compile a call for one sample.

    Raises
    ------
    UnsupportedError
        If the accelerator can't run it.
    """
    return compile_conv(sample_of(conv_layer_of(call)), accelerator)


def _host_function(
    function: relax.Function, accelerator: Accelerator, simulator: str
) -> tvm.runtime.Module:
    call, symbol = accelerated(function), str(function.attrs["global_symbol"])
    text = dumps(program_of(call, accelerator), accelerator)
    strings = str(call.attrs["layer"]), simulator, text
    inputs = [te.placeholder(list(x.ty.shape), str(x.ty.dtype), x.name) for x in function.params]
    output = te.extern(
        list(function.ret_ty.shape),
        inputs,
        lambda ins, outs: tirx.call_packed(RUN, *ins, *strings, outs[0]),
        dtype=str(function.ret_ty.dtype),
        name="output",
    )
    host = te.create_prim_func([*inputs, output]).with_attr("global_symbol", symbol)
    return tvm.compile(tvm.IRModule({symbol: host}), target="llvm").mod
