"""`ReportData`: one row per layer, and what stayed float with the reason and the cure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from msgspec import convert

from ..printable import escape_fields
from ..vta.work import Work

Self = TypeVar("Self", bound="ReportData")


@dataclass(frozen=True)
class LayerRow:
    """One layer that became branches.

    Parameters
    ----------
    name : str
    shape : str
        Kernel and channels, then output size.
    weight_bits, act_bits : int
    out_bits : int
        Bits of the codes it ends in, 32 for accumulators.
    strategy : str
    macs : int
        Multiply-accumulates per run, of one sample where the batch is dynamic; 0 for pooling.
    float_bytes, stored_bytes : int
        Size of the weights in float32 and as the kernel reads them.
    schedule : str
        ``"default rule"``, the tuned record that the kernel was made by, or ``"program"`` on an
        accelerator.
    cpu_reason : str
        Why the accelerator of the target doesn't run it; empty without one.
    work : Work, optional
        What it costs on the accelerator.
    moved_bytes : int
        Weights as stored, and the codes or numbers that come in and go out; 0 if not known.
    bit_operations : int
        Products of a plane of weights and one of activations, shared ones once, see `ConvLayer`.
    branches : int
        How many pairs of planes a layer sums that has a branch matrix; 0 for all pairs.
    """

    name: str
    shape: str
    weight_bits: int
    act_bits: int
    out_bits: int
    strategy: str
    macs: int
    float_bytes: int
    stored_bytes: int
    schedule: str = "default rule"
    cpu_reason: str = ""
    work: Work | None = None
    moved_bytes: int = 0
    bit_operations: int = 0
    branches: int = 0

    def __post_init__(self):
        escape_fields(self)

    @property
    def bits_per_weight(self) -> float:
        """Bits that a weight takes as stored, 0 without weights."""
        return 8 * 4 * self.stored_bytes / self.float_bytes if self.float_bytes else 0.0

    def to_dict(self) -> dict:
        """Plain numbers and strings; those of `Work` beside the others."""
        content = {**asdict(self), "bits_per_weight": self.bits_per_weight}
        return content | (content.pop("work") or {})

    @classmethod
    def from_dict(cls, content: dict) -> LayerRow:
        """Inverse of `to_dict`; `msgspec.ValidationError` for anything else."""
        work = convert(content, Work) if "cycles" in content else None
        return replace(convert(content, cls), work=work)


@dataclass(frozen=True)
class FloatLayer:
    """One convolution or matrix product that stayed float.

    Parameters
    ----------
    name : str
    reason : str
        Why.
    cure : str
        What to change.
    macs : int
        Multiply-accumulates per run, of one sample where the batch is dynamic.
    """

    name: str
    reason: str
    cure: str = ""
    macs: int = 0

    def __post_init__(self):
        escape_fields(self)


@dataclass(frozen=True)
class FloatOps:
    """Other float32 arithmetic that runs between layers.

    Parameters
    ----------
    op : str
    count : int
    layers : list of str
        Names of the modules that it belongs to, where they are known.
    """

    op: str
    count: int
    layers: list[str] = field(default_factory=list)

    def __post_init__(self):
        escape_fields(self)


@dataclass(frozen=True)
class ReportData:
    """What each layer became; `str` gives a table.

    Parameters
    ----------
    target : str
    layers : list of LayerRow
    float_layers : list of FloatLayer
    float_ops : list of FloatOps
    notes : list of str
        Advice on layers that could be cheaper.
    macs_per_cycle : int
        Binary multiply-accumulates of the target's accelerator; 0 without one.
    bytes_per_cycle : int
        Of the accelerator's memory.
    edges : list of (int, int)
        Which layer's numbers which layer reads, by their positions; -1 is an input.
    programs : int
        Of the target's accelerator; layers that hang together make one.
    cpu_bytes : int
        That the CPU hands over to them, and takes from them, per sample.
    """

    target: str
    layers: list[LayerRow] = field(default_factory=list)
    float_layers: list[FloatLayer] = field(default_factory=list)
    float_ops: list[FloatOps] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    macs_per_cycle: int = 0
    bytes_per_cycle: int = 0
    edges: list[tuple[int, int]] = field(default_factory=list)
    programs: int = 0
    cpu_bytes: int = 0

    def __post_init__(self):
        escape_fields(self)

    @property
    def works(self) -> list[Work]:
        """Costs of the layers on the accelerator."""
        return [row.work for row in self.layers if row.work is not None]

    @property
    def cycles(self) -> int:
        """Cycles of all layers on the accelerator, which run one after another."""
        return sum(work.cycles for work in self.works)

    @property
    def utilization(self) -> float:
        """Part of what the array could do in these cycles that the layers needed, 0 to 1."""
        needed = sum(work.binary_macs for work in self.works)
        return needed / (self.cycles * self.macs_per_cycle) if self.works else 0.0

    @property
    def dram_bytes(self) -> int:
        """Memory traffic of all layers on the accelerator."""
        return sum(work.dram_bytes for work in self.works)

    @property
    def quantized_share(self) -> float:
        """Part of all multiply-accumulates that runs on codes, 0 to 1; 1 without any layer."""
        quantized = sum(row.macs for row in self.layers)
        total = quantized + sum(layer.macs for layer in self.float_layers)
        return quantized / total if total else 1.0

    @property
    def float_bytes(self) -> int:
        """Weights of the branch layers in float32."""
        return sum(row.float_bytes for row in self.layers)

    @property
    def stored_bytes(self) -> int:
        """The same weights as the kernels read them."""
        return sum(row.stored_bytes for row in self.layers)

    def to_dict(self) -> dict:
        """Plain numbers and strings, as JSON holds them; with totals of an accelerator."""
        content = {**asdict(self), "layers": [row.to_dict() for row in self.layers]}
        if self.macs_per_cycle:
            content |= {name: getattr(self, name) for name in _TOTALS}
        return content

    @classmethod
    def from_dict(cls: type[Self], content: dict) -> Self:
        """Inverse of `to_dict`; `msgspec.ValidationError` for anything else."""
        rows = convert(content.get("layers"), list[dict[str, Any]])
        report = convert({**content, "layers": []}, cls)
        return replace(report, layers=[LayerRow.from_dict(row) for row in rows])

    @property
    def number_columns(self) -> int:
        """How many columns of the table, from the right, hold numbers."""
        return 6 if self.macs_per_cycle else 3

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings and cells of the layers."""
        headings = ["layer", "shape", "bits", "out", "strategy", "schedule"]
        headings += ["MACs", "float32", "stored"]
        headings += ["cycles", "utilization", "DRAM bytes"] if self.macs_per_cycle else []
        cells = [
            [
                row.name,
                row.shape,
                f"W{row.weight_bits}A{row.act_bits}" if row.weight_bits else f"A{row.act_bits}",
                "32 bits" if row.out_bits == 32 else f"A{row.out_bits}",
                row.strategy,
                row.schedule,
                f"{row.macs:,}",
                f"{row.float_bytes:,}",
                f"{row.stored_bytes:,}",
                *(_cost_cells(row.work) if self.macs_per_cycle else []),
            ]
            for row in self.layers
        ]
        total = [f"{sum(row.macs for row in self.layers):,}"]
        total += [f"{self.float_bytes:,}", f"{self.stored_bytes:,}"]
        total += _cost_cells(self if self.works else None) if self.macs_per_cycle else []
        return headings, [*cells, ["total", "", "", "", "", "", *total]]

    def __str__(self) -> str:
        headings, cells = self.table()
        lines = [
            f"target {self.target}; sizes are bytes of weights",
            *_aligned(headings, cells, self.number_columns),
        ]
        return "\n".join([*lines, *self.remarks()])

    def remarks(self) -> list[str]:
        """What stayed float and why, the share of the rest, and advice: a line each."""
        lines = [f"cpu: {row.name}: {row.cpu_reason}" for row in self.layers if row.cpu_reason]
        lines += [f"float: {layer_line(layer)}" for layer in self.float_layers]
        lines += [f"float: {ops_line(ops)}" for ops in self.float_ops]
        lines += [f"note: {note}" for note in self.notes]
        if self.float_layers:
            share = 100 * self.quantized_share
            lines.append(f"{share:.1f} % of the multiply-accumulates run on codes")
        return lines


_TOTALS = ("cycles", "utilization", "dram_bytes")


def _cost_cells(cost: Work | ReportData | None) -> list[str]:
    """Cells of a layer's cost, or of all; empty on the CPU."""
    if cost is None:
        return ["", "", ""]
    return [f"{cost.cycles:,}", f"{100 * cost.utilization:.1f} %", f"{cost.dram_bytes:,}"]


def _aligned(headings: list[str], cells: list[list[str]], numbers: int) -> list[str]:
    """Columns side by side: text to the left, the columns of numbers to the right."""
    rows = [headings, *cells]
    widths = [max(len(row[i]) for row in rows) for i in range(len(headings))]

    def line(row: list[str]) -> str:
        padded = [
            cell.rjust(width) if i >= len(row) - numbers else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ]
        return "  ".join(padded).rstrip()

    return [line(headings), "  ".join("-" * width for width in widths), *map(line, cells)]


def layer_line(layer: FloatLayer) -> str:
    """One float layer as a sentence or three."""
    macs = f" ({layer.macs:,} MACs)" if layer.macs else ""
    cure = f". {layer.cure}" if layer.cure else ""
    return f"{layer.name}{macs}: {layer.reason}{cure}"


def ops_line(ops: FloatOps) -> str:
    """Float arithmetic of one kind as a line."""
    where = f" in {', '.join(ops.layers)}" if ops.layers else ""
    return f"{ops.count} x {ops.op}{where}"
