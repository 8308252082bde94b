"""The passes, in order: a table of contents of the compiler."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import tvm
from tvm import relax
from tvm.ir.transform import Pass
from tvm.relax.backend.cpu_generic import pipeline as cpu_pipeline

from ..errors import BitencError
from ..target import Target
from ..vta.codegen import run_codegen
from .as_conv2d import AsConv2d
from .canonicalize import Canonicalize
from .channels_last import ChannelsLast
from .codes import Codes
from .direct_codes import DirectCodes
from .fold import Fold
from .fuse_encode import FuseEncode
from .fuse_epilogue import FuseEpilogue
from .fuse_float import FuseFloat
from .layout import Layout
from .lower import Lower
from .lower_pool import LowerPool
from .parallelize import Parallelize
from .partition import Partition
from .push_quantizers import PushQuantizers
from .schedule import Schedule
from .strategy import Strategy
from .strict_float import STRICT_LEGALIZATION


@dataclass(frozen=True)
class Pipeline:
    """Passes in order, named by their `info.name`.

    Parameters
    ----------
    passes : sequence of tvm.ir.transform.Pass
    """

    passes: Sequence[Pass]

    @property
    def names(self) -> list[str]:
        """Names of the passes."""
        return [step.info.name for step in self.passes]

    def insert_after(self, name: str, *passes: Pass) -> Pipeline:
        """Return a pipeline with passes added behind the one called `name`."""
        position = self._position(name) + 1
        return Pipeline([*self.passes[:position], *passes, *self.passes[position:]])

    def insert_before(self, name: str, *passes: Pass) -> Pipeline:
        """Return a pipeline with passes added in front of the one called `name`."""
        position = self._position(name)
        return Pipeline([*self.passes[:position], *passes, *self.passes[position:]])

    def until(self, name: str) -> Pipeline:
        """Return the pipeline that stops in front of the pass called `name`."""
        return Pipeline(list(self.passes[: self._position(name)]))

    def run(
        self, mod: tvm.IRModule, observe: Callable[[str, tvm.IRModule], None] | None = None
    ) -> tvm.IRModule:
        """Run every pass; ``observe(name, module)`` is called in front of each."""
        for step in self.passes:
            if observe is not None:
                observe(step.info.name, mod)
            mod = step(mod)
        return mod

    def _position(self, name: str) -> int:
        if name not in self.names:
            raise BitencError(
                f"pass {name!r}", "isn't in the pipeline", f"Its passes are {', '.join(self.names)}"
            )
        return self.names.index(name)


def default_pipeline(target: Target, strategy: str | Mapping[str, str] = "auto") -> Pipeline:
    """Return the passes of `tvm_bitenc.build`."""
    # layers that an accelerator supports -> functions of their own
    for_accelerator = [] if target.accelerator is None else [Partition(target, strategy)]
    return Pipeline(
        [
            Canonicalize(),  # every spelling of a quantizer -> bitenc.quantize
            AsConv2d(),  # layers of other shapes -> 2-d convolutions and matrix products
            PushQuantizers(),  # in front of concatenations, padding and the like: codes flow
            Lower(),  # layers of two quantized tensors -> sums of {-1,+1} branches
            LowerPool(),  # average pooling of codes -> sums of codes
            Codes(),  # arithmetic between quantized tensors -> tables of codes
            Fold(),  # batch-norm, activation, re-quantization -> integer thresholds
            Layout(),  # codes -> packed planes, channels last
            ChannelsLast(),  # float arithmetic between layers -> channels last as well
            FuseEncode(),  # float images -> planes by thresholds on the floats
            FuseEpilogue(),  # thresholds join the convolution before them
            *for_accelerator,
            FuseFloat(),  # float arithmetic joins it, where there are none
            Strategy(strategy, target),  # how each branch sum is computed
            DirectCodes(target),  # first layers of few channels read codes, not planes
            Schedule(target),  # packed ops -> kernels of the target
        ]
    )


def no_lowering(target: Target, strategy: str = "auto") -> Pipeline:
    """Return no passes at all: the module runs as imported. The oracle of every other pipeline."""
    return Pipeline([])


def code_generation(target: Target) -> Pass:
    """Return TVM's own passes, from what is left of Relax to the virtual machine."""
    finalize = cpu_pipeline.finalize_passes(target.tvm_target)
    return tvm.transform.Sequential([*_kernel_passes(target), *finalize])


def memory_planning(target: Target) -> Pass:
    """Return the first of these passes: kernels are called with tensors in planned storages."""
    return tvm.transform.Sequential(
        [
            *_kernel_passes(target),
            relax.transform.StaticPlanBlockMemory(),
            relax.transform.LowerAllocTensor(),
        ]
    )


def _kernel_passes(target: Target) -> list[Pass]:
    external = [] if target.accelerator is None else [run_codegen(target)]
    return [
        *external,
        *cpu_pipeline.library_dispatch_passes(target.tvm_target),
        relax.transform.LegalizeOps(STRICT_LEGALIZATION),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FoldConstant(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
        Parallelize(target),
        *cpu_pipeline.dataflow_lower_passes(target.tvm_target),
    ]
