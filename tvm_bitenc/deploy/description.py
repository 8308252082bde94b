"""What stands at the end of a library file: whom it is for, its inputs and outputs, its report."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ..accelerator import Accelerator
from ..decode import INT32_MAX, INT64_MAX, Count, Document, Name, Share, Source, Text
from ..runtime.network import Interface
from ..runtime.specs import TensorSpec
from ..tvm_options import SealedTvmOptions

if TYPE_CHECKING:
    from ..target import Target

FORMAT_VERSION = 2
Bits = Annotated[int, Meta(ge=0, le=32)]
Position = Annotated[int, Meta(ge=-1, lt=1 << 20)]
Specs = Annotated[list[TensorSpec], Meta(max_length=4096)]


class Layer(msgspec.Struct, frozen=True):
    """A row of a report; on an accelerator with its work."""

    name: Text
    shape: Text
    weight_bits: Bits
    act_bits: Bits
    out_bits: Bits
    strategy: Name
    macs: Count
    float_bytes: Count
    stored_bytes: Count
    schedule: Text = ""
    cpu_reason: Text = ""
    moved_bytes: Count = 0
    bit_operations: Count = 0
    cycles: Count = 0
    utilization: Share = 0.0
    dram_bytes: Count = 0
    load_cycles: Count = 0
    compute_cycles: Count = 0
    store_cycles: Count = 0
    binary_macs: Count = 0
    is_measured: bool = False


class FloatLayer(msgspec.Struct, frozen=True):
    """A layer that stayed float."""

    name: Text
    reason: Text
    cure: Text = ""
    macs: Count = 0


class FloatOps(msgspec.Struct, frozen=True):
    """Other float arithmetic."""

    op: Name
    count: Count
    layers: list[Text] = []


class ReportDocument(msgspec.Struct, frozen=True):
    """A report; `report.Report` reads it."""

    target: Name
    layers: list[Layer] = []
    float_layers: list[FloatLayer] = []
    float_ops: list[FloatOps] = []
    notes: list[Text] = []
    macs_per_cycle: Count = 0
    bytes_per_cycle: Count = 0
    edges: list[tuple[Position, Position]] = []


class TargetDescription(Document, frozen=True):
    """Whom a library was compiled for."""

    name: Name
    architecture: Name
    instructions: Annotated[list[Name], Meta(max_length=1000)]
    tvm: SealedTvmOptions
    threads: Annotated[int, Meta(ge=1, le=4096)] | None
    accelerator: Accelerator | None
    simulator: Literal["functional", "verilog"]

    def target(self, source: Source) -> Target:
        """The target; an error of the source where TVM doesn't know it."""
        from ..target import Target  # It takes TVM, which a run doesn't.
        from ..tvm_target import tvm_target

        found = Target(self.name, tvm_target(self.tvm, source), threads=self.threads)
        return replace(found, accelerator=self.accelerator, simulator=self.simulator)


class Description(Document, frozen=True):
    """All of it."""

    format: Literal[2]
    tvm: Annotated[str, Meta(pattern=r"^[0-9]+\.[0-9]+[\w.+-]{0,40}\Z")]
    target: TargetDescription
    inputs: Specs
    outputs: Specs
    report: dict[str, Any]
    largest_batch: Annotated[int, Meta(ge=1, le=INT64_MAX)] | None = None
    network: Interface | None = None

    def __post_init__(self):
        for spec in (*self.inputs, *self.outputs):
            if math.prod(size for size in spec.shape if isinstance(size, int)) > INT32_MAX:
                raise ValueError(f"{spec.name!r} has more than {INT32_MAX:,} elements")
        msgspec.convert(self.report, ReportDocument)
