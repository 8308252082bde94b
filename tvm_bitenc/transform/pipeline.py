"""The passes, in order: a table of contents of the compiler."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import tvm
from tvm import relax
from tvm.ir.transform import Pass
from tvm.relax.backend.cpu_generic import pipeline as cpu_pipeline

from ..errors import BitencError
from ..records.file import NO_RECORDS, Records
from ..target import Target
from ..vta.codegen import run_codegen
from .as_conv2d import AsConv2d
from .bit_planes import BitPlanes
from .canonicalize import Canonicalize
from .channels_last import ChannelsLast
from .codes import Codes
from .codes_as_bytes import CodesAsBytes
from .direct_codes import DirectCodes
from .elementary import Elementary
from .fold import Fold
from .fold_constants import FoldConstants
from .fuse_encode import FuseEncode
from .fuse_epilogue import FuseEpilogue
from .fuse_float import FuseFloat
from .fuse_loops import FuseLoops
from .fuse_ops import FuseOps
from .layout import Layout
from .lower import Lower
from .lower_pool import LowerPool
from .multiply_add import MultiplyAdd
from .parallelize import Parallelize
from .partial_sums import PartialSums
from .partition import Partition
from .push_quantizers import PushQuantizers
from .schedule import Schedule
from .share_channels import ShareChannels
from .simplify_indices import SimplifyIndices
from .strategy import Strategy
from .strict_float import STRICT_LEGALIZATION
from .vectorize import Vectorize
from .vectorize_pools import VectorizePools

Observe = Callable[[str, tvm.IRModule], None]
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phase:
    """Passes that serve one end.

    Parameters
    ----------
    name : str
    passes : tuple of tvm.ir.transform.Pass
    """

    name: str
    passes: tuple[Pass, ...]


@dataclass(frozen=True)
class Pipeline:
    """Passes in order, named by their `info.name`; `str` lists them.

    Parameters
    ----------
    parts : sequence of Phase or tvm.ir.transform.Pass
    """

    parts: Sequence[Phase | Pass]

    @property
    def passes(self) -> list[Pass]:
        """All passes, whatever phase they are in."""
        return [step for _, step in self._steps()]

    @property
    def names(self) -> list[str]:
        """Names of the passes."""
        return [step.info.name for step in self.passes]

    def insert_after(self, name: str, *passes: Pass) -> Pipeline:
        """Return a pipeline with passes added behind the one called `name`, in its phase."""
        return self._replaced(name, lambda found: (found, *passes))

    def insert_before(self, name: str, *passes: Pass) -> Pipeline:
        """Return a pipeline with passes added in front of the one called `name`, in its phase."""
        return self._replaced(name, lambda found: (*passes, found))

    def until(self, name: str) -> Pipeline:
        """Return the pipeline that stops in front of the pass called `name`."""
        left, parts = self._position(name), list[Phase | Pass]()
        for part in self.parts:
            if isinstance(part, Phase):
                parts += [Phase(part.name, part.passes[:left])] if left else []
                left = max(left - len(part.passes), 0)
            else:
                parts += [part] if left else []
                left = max(left - 1, 0)
        return Pipeline(parts)

    def run(
        self,
        mod: tvm.IRModule,
        observe: Observe | None = None,
        after: Observe | None = None,
    ) -> tvm.IRModule:
        """Run every pass.

        Parameters
        ----------
        mod : tvm.IRModule
        observe, after : callable (name, module), optional
            Called in front of each pass, and behind it.
        """
        for phase, step in self._steps():
            _logger.info("%s: %s", phase or "pass", step.info.name)
            if observe is not None:
                observe(step.info.name, mod)
            mod = step(mod)
            if after is not None:
                after(step.info.name, mod)
        return mod

    def __str__(self) -> str:
        lines = []
        for part in self.parts:
            steps = part.passes if isinstance(part, Phase) else (part,)
            lines += [part.name] if isinstance(part, Phase) else []
            lines += [f"  {step.info.name}" for step in steps]
        return "\n".join(lines)

    def _steps(self) -> list[tuple[str, Pass]]:
        """Every pass with the name of its phase, empty where it has none."""
        found: list[tuple[str, Pass]] = []
        for part in self.parts:
            name, passes = (part.name, part.passes) if isinstance(part, Phase) else ("", (part,))
            found += [(name, step) for step in passes]
        return found

    def _replaced(self, name: str, put: Callable[[Pass], tuple[Pass, ...]]) -> Pipeline:
        """Return the pipeline with other passes in place of the first one called `name`."""
        place, parts, count = self._position(name), list[Phase | Pass](), 0
        for part in self.parts:
            passes = part.passes if isinstance(part, Phase) else (part,)
            inside = place - count
            count += len(passes)
            if 0 <= inside < len(passes):
                passes = (*passes[:inside], *put(passes[inside]), *passes[inside + 1 :])
            parts += [Phase(part.name, passes)] if isinstance(part, Phase) else passes
        return Pipeline(parts)

    def _position(self, name: str) -> int:
        if name not in self.names:
            raise BitencError(
                f"pass {name!r}", "isn't in the pipeline", f"Its passes are {', '.join(self.names)}"
            )
        return self.names.index(name)


def default_pipeline(
    target: Target,
    strategy: str | Mapping[str, str] = "auto",
    records: Records = NO_RECORDS,
) -> Pipeline:
    """Return the passes of `tvm_bitenc.build`."""
    # layers that an accelerator supports -> functions of their own; it shares sums as well
    has_accelerator = target.accelerator is not None
    share = ShareChannels(target, any_order=False)
    for_accelerator = (share, Partition(target, strategy)) if has_accelerator else ()
    return Pipeline(
        [
            Phase(
                "read: what the model computes, in bits",
                (
                    Canonicalize(),  # every spelling of a quantizer -> bitenc.quantize
                    AsConv2d(),  # layers of other shapes -> 2-d convolutions, matrix products
                    PushQuantizers(),  # in front of concatenations and the like: codes flow
                ),
            ),
            Phase(
                "integers: sums of branches in place of float arithmetic",
                (
                    BitPlanes(),  # convolutions of an image's bit planes -> sums of branches
                    Lower(),  # layers of two quantized tensors -> sums of {-1,+1} branches
                    LowerPool(),  # average pooling of codes -> sums of codes
                    Codes(),  # arithmetic between quantized tensors -> tables of codes
                    Fold(),  # batch-norm, activation, re-quantization -> integer thresholds
                ),
            ),
            Phase(
                "memory: how numbers lie and travel",
                (
                    Layout(),  # codes -> packed planes, channels last
                    ChannelsLast(),  # float arithmetic between layers -> channels last as well
                    FuseEncode(),  # float images -> planes by thresholds on the floats
                    FuseEpilogue(),  # thresholds join the convolution before them
                    *for_accelerator,
                    FuseFloat(),  # float arithmetic joins it, where there are none
                ),
            ),
            Phase(
                "kernels: code of the target",
                (
                    ShareChannels(target),  # output channels of the same weights share their sums
                    Strategy(strategy, target, records),  # how each branch sum is computed
                    DirectCodes(target, records),  # layers of few channels read codes, not planes
                    CodesAsBytes(target, records),  # and layers that multiply bytes read bytes
                    Schedule(target),  # packed ops -> kernels of the target
                ),
            ),
        ]
    )


def no_lowering(
    target: Target, strategy: str | Mapping[str, str] = "auto", records: Records = NO_RECORDS
) -> Pipeline:
    """Return no passes at all: the module runs as imported. The oracle of every other pipeline."""
    return Pipeline([])


def kernel_calls(target: Target) -> Pass:
    """Return passes that leave kernels, and a `main` that calls them with tensors it allocates."""
    return tvm.transform.Sequential(_kernel_passes(target))


def virtual_machine_passes(target: Target) -> Pass:
    """Return TVM's own passes from there to its virtual machine."""
    return tvm.transform.Sequential(cpu_pipeline.finalize_passes(target.tvm_target))


def _kernel_passes(target: Target) -> list[Pass]:
    external = [] if target.accelerator is None else [run_codegen(target)]
    return [
        *external,
        *cpu_pipeline.library_dispatch_passes(target.tvm_target),
        relax.transform.LegalizeOps(STRICT_LEGALIZATION),
        relax.transform.AnnotateTIROpPattern(),
        FoldConstants(),
        FuseOps(),
        relax.transform.FuseTIR(),
        Elementary(),
        SimplifyIndices(),
        FuseLoops(),
        PartialSums(target),
        Vectorize(target),
        Parallelize(target),
        VectorizePools(target),
        MultiplyAdd(target),
        *cpu_pipeline.dataflow_lower_passes(target.tvm_target),
    ]
