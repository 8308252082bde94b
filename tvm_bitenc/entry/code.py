"""Machine code of a network: TVM's passes over TIR, then LLVM."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
import tvm_ffi
from tvm import s_tir, tirx

from ..errors import UnsupportedError
from ..runtime.network import Interface
from ..runtime.size import Size
from ..target import Target
from .function import entry_module
from .plan import Plan, make_plan
from .workspace import with_workspaces

NAME = "bitenc"  # In front of both, where there is no other network in the program.
STEPS, CALL = "{}_steps", "{}_call"  # Functions in C, and of TVM's runtime.


@dataclass(frozen=True)
class CompiledNetwork:
    """A network as one function.

    Parameters
    ----------
    module : tvm.runtime.Module
        LLVM's, with the functions of `function.entry_module`.
    plan : Plan
    arena : Size
        Bytes of the plan's tensors, and the workspace of kernels behind them.
    """

    module: tvm.runtime.Module
    plan: Plan
    arena: Size

    @property
    def interface(self) -> Interface:
        """What its caller must know."""
        shapes = tuple(tensor.shape for tensor in self.plan.outputs)
        steps = tuple(step.kernel or "copy" for step in self.plan.steps)
        return Interface(self.arena, shapes, steps)


def compile_network(
    kernels: tvm.IRModule, target: Target, name: str = NAME, for_tvm: bool = True
) -> CompiledNetwork:
    """Compile `main` and the kernels that it calls to one function.

    Parameters
    ----------
    kernels : tvm.IRModule
        As `transform.pipeline.kernel_calls` returns it.
    target : Target
    name, for_tvm
        See `function.entry_module`.

    Raises
    ------
    UnsupportedError
        If it needs TVM's runtime, or memory of a size that isn't known beforehand.
    """
    tvm_target = target.tvm_target
    plan = make_plan(kernels)
    module = entry_module(kernels, plan, name, for_tvm)
    with tvm_target:
        bound = tirx.transform.BindTarget(tvm_target.with_host(tvm_target))(module)
        lowered, workspace = with_workspaces(_lowering()(bound))
        _check_calls(lowered)
        finished = tvm.transform.Sequential(
            [
                tirx.transform.SkipAssert(),
                tirx.transform.LowerTVMBuiltin(),
                tirx.transform.LowerIntrin(),
            ]
        )(lowered)
    build = tvm.get_global_func(f"target.build.{tvm_target.kind.name}")
    return CompiledNetwork(build(finished, tvm_target), plan, plan.arena + workspace)


@tvm.transform.module_pass(opt_level=0, name="bitenc.CompactBufferAllocation")
class _CompactBufferAllocation:
    """TVM's pass on functions that allocate: on others it takes long to change nothing."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        mod, found = mod.clone(), dict(mod.functions_items())
        allocating = {var: function for var, function in found.items() if _allocates(function)}
        mod.update(s_tir.transform.CompactBufferAllocation()(tvm.IRModule(allocating)))
        return mod


def _allocates(function: tvm.ir.BaseFunc) -> bool:
    """Whether a block of a function has buffers of its own."""
    found: list[tirx.Buffer] = []
    blocks = (s_tir.SBlock, lambda block: found.extend(block.alloc_buffers))
    tvm_ffi.structural_walk(function, blocks)
    return bool(found)


def _check_calls(module: tvm.IRModule) -> None:
    """Raise for a kernel that calls a function by TVM's registry."""
    for var, function in module.functions_items():

        def check(call: tvm.ir.Call, kernel: str = var.name_hint) -> None:
            if "call_packed" in getattr(call.op, "name", ""):
                raise UnsupportedError(
                    f"kernel {kernel!r}",
                    "calls a function of TVM's runtime",
                    "Leave this part out of the model",
                )

        tvm_ffi.structural_walk(function, (tvm.ir.Call, check))


def _lowering() -> tvm.transform.Pass:
    """Return TVM's passes that code for a CPU needs; the others of its list are for GPUs."""
    return tvm.transform.Sequential(
        [
            s_tir.transform.CanonicalizeLoop(),
            s_tir.transform.LowerInitBlock(),
            s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
            s_tir.transform.ConvertBlocksToOpaque(),
            _CompactBufferAllocation(),
            s_tir.transform.LowerMatchBuffer(),
            tirx.transform.StmtSimplify(),
            s_tir.transform.LowerOpaqueBlock(),
            tirx.transform.FlattenBuffer(),
            tirx.transform.BF16ComputeLegalize(),
            tirx.transform.NarrowDataType(32),
            tirx.transform.VectorizeLoop(),
            tirx.transform.StorageRewrite(),
            tirx.transform.UnrollLoop(),
            tirx.transform.StmtSimplify(),
            tirx.transform.RemoveNoOp(),
            s_tir.transform.RewriteUnsafeSelect(),
            tirx.transform.FP8ComputeLegalize(),
            tirx.transform.VerifyMemory(),
            tirx.transform.SplitHostDevice(),
            tirx.transform.MakePackedAPI(),
            tirx.transform.FP8StorageLegalize(),
            tirx.transform.BF16StorageLegalize(),
        ]
    )
