"""The same network for TVM's virtual machine: `main` makes tensors, and one kernel does all.

After::

    @T.prim_func
    def bitenc_run(x: T.Buffer((1, 8)), output0: T.Buffer((1, 8)), arena: T.Buffer((64,), "uint8")):
        weights = T.call_extern("handle", "bitenc_weights_address")
        T.call_extern("int32", "bitenc_steps", x.data, output0.data, weights, arena.data, 0, 0, 9)

    @R.function
    def main(x: R.Tensor((1, 8))):
        run = R.call_tir(bitenc_run, (x,), out_ty=[R.Tensor((1, 8)), R.Tensor((64,), "uint8")])
        return (run[0],)
"""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import relax, tirx
from tvm.relax.backend.cpu_generic import pipeline as cpu_pipeline
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from ..runtime.network import ALL_STEPS
from ..runtime.size import Size
from ..runtime.specs import TensorSpec
from ..target import Target
from ..transform.options import with_options
from .code import NAME, STEPS, CompiledNetwork
from .plan import Tensor
from .symbolic import as_expression

RUN, WEIGHTS_ADDRESS = f"{NAME}_run", f"{NAME}_weights_address"


def virtual_machine_module(
    network: CompiledNetwork, inputs: Sequence[TensorSpec], is_tuple: bool
) -> tvm.IRModule:
    """Return a module whose code, linked with the network's, runs on TVM's virtual machine.

    Parameters
    ----------
    network : CompiledNetwork
    inputs : sequence of TensorSpec
    is_tuple : bool
        Whether `main` returns a tuple even of one output.
    """
    batch = tirx.Var("batch", "int64")

    def shape_of(sizes: Sequence[Size]) -> list[tirx.Expr]:
        return [as_expression(size, batch) for size in sizes]

    plan = network.plan
    tensors = [*plan.inputs, *plan.outputs, _arena(network.arena)]
    builder = relax.BlockBuilder()
    params = [
        relax.Var(spec.name, relax.TensorType(shape_of(tensor.shape), tensor.dtype))
        for spec, tensor in zip(inputs, plan.inputs)
    ]
    made = [
        relax.TensorType(shape_of(tensor.shape), tensor.dtype)
        for tensor in tensors[len(plan.inputs) :]
    ]
    run = builder.add_func(_run(tensors), RUN)
    with builder.function("main", params):
        with builder.dataflow():
            result = builder.emit(relax.call_tir(run, params, made))
            outputs = [builder.emit(relax.TupleGetItem(result, i)) for i in range(len(made) - 1)]
            value = relax.Tuple(outputs) if is_tuple else outputs[0]
            value = builder.emit_output(value)
        builder.emit_func_output(value)
    return builder.finalize()


def _arena(size: Size) -> Tensor:
    return Tensor("arena", Size(0), "uint8", (size,), size)


def _run(tensors: Sequence[Tensor]) -> tirx.PrimFunc:
    batch = tirx.Var("batch", "int64")
    has_batch = any(size.per_sample for tensor in tensors for size in tensor.shape)
    with IRBuilder() as builder, T.prim_func():
        T.func_name(RUN)
        *pointers, arena = (
            T.arg(t.base, T.buffer([as_expression(s, batch) for s in t.shape], t.dtype)).data
            for t in tensors
        )
        weights = tirx.call_extern("handle", WEIGHTS_ADDRESS)
        count = batch if has_batch else tirx.const(0, "int64")
        which = tirx.const(0, "int32"), tirx.const(ALL_STEPS, "int32")
        arguments = (*pointers, weights, arena, count, *which)
        with T.sblock("root"):
            T.reads()
            T.writes()
            T.evaluate(tirx.call_extern("int32", STEPS.format(NAME), *arguments))
    function = builder.get().with_attr("tirx.is_scheduled", True)
    return function.without_attr("global_symbol")


def build_for_tvm(module: tvm.IRModule, target: Target) -> relax.VMExecutable:
    """Compile what `virtual_machine_module` returned."""
    passes = [
        *cpu_pipeline.dataflow_lower_passes(target.tvm_target),
        *cpu_pipeline.finalize_passes(target.tvm_target),
    ]
    with target.tvm_target:
        lowered = tvm.transform.Sequential(passes)(module)
    # The machine checks what `main` is given; an error of the kernel's own would need TVM's
    # runtime wherever the library is loaded.
    with with_options({"tirx.disable_assert": True}):
        return relax.build(lowered, target.tvm_target, relax_pipeline=None)
