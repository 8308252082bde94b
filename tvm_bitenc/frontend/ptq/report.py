"""What quantization did to each layer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from ...errors import BitencError

if TYPE_CHECKING:
    from torch import Tensor

REPORT = "bitenc.quantization_report"  # Key in the metadata of a result.
FLOAT_BYTES = 4


@dataclass(frozen=True)
class QuantizedRow:
    """One quantized layer.

    Parameters
    ----------
    name, kind : str
    weight_bits, act_bits : int
    float_bytes, weight_bytes : int
        Size of the weights in float32 and as codes without gaps.
    error : float
        Mean squared error of the layer's output, relative to its power, if this layer alone is
        quantized.
    total_error : float
        The same with all layers quantized: with what the layers before it add.
    """

    name: str
    kind: str
    weight_bits: int
    act_bits: int
    float_bytes: int
    weight_bytes: int
    error: float
    total_error: float


@dataclass(frozen=True)
class QuantizationReport:
    """What `quantize` did; `str` gives a table.

    Parameters
    ----------
    layers : list of QuantizedRow
    float_layers : list of (name, reason)
        Layers left in float.
    output_error : float
        Mean squared error of the network's outputs on calibration data, relative to their power.
    """

    layers: list[QuantizedRow] = field(default_factory=list)
    float_layers: list[tuple[str, str]] = field(default_factory=list)
    output_error: float = 0.0

    @property
    def float_bytes(self) -> int:
        """Weights of the quantized layers in float32."""
        return sum(row.float_bytes for row in self.layers)

    @property
    def weight_bytes(self) -> int:
        """The same weights as codes."""
        return sum(row.weight_bytes for row in self.layers)

    def to_json(self) -> str:
        """Text from which `from_json` makes the same report."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> QuantizationReport:
        """Inverse of `to_json`."""
        content = json.loads(text)
        rows = [QuantizedRow(**row) for row in content["layers"]]
        left = [(name, reason) for name, reason in content["float_layers"]]
        return cls(rows, left, content["output_error"])

    def __str__(self) -> str:
        headings = ("layer", "kind", "bits", "float32", "codes", "own SQNR", "total SQNR")
        rows = [
            (
                row.name,
                row.kind,
                f"W{row.weight_bits}A{row.act_bits}",
                f"{row.float_bytes:,}",
                f"{row.weight_bytes:,}",
                decibels(row.error),
                decibels(row.total_error),
            )
            for row in self.layers
        ]
        total = f"{self.float_bytes:,}", f"{self.weight_bytes:,}", "", decibels(self.output_error)
        rows = [headings, *rows, ("network", "", "", *total)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(headings))]
        lines = [
            "  ".join(
                cell.ljust(width) if i < 3 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths))
            ).rstrip()
            for row in rows
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([*lines, *(f"float: {name}: {why}" for name, why in self.float_layers)])


def decibels(error: float) -> str:
    """Signal to quantization noise of a relative squared error."""
    return f"{-10 * math.log10(error):.1f} dB" if error > 0 else "exact"


def report_of(result: object) -> QuantizationReport:
    """Return the report of a model that `tvm_bitenc.quantize` returned.

    Parameters
    ----------
    result : torch.nn.Module or tvm.IRModule

    Raises
    ------
    BitencError
        If the model carries none.
    """
    metadata = getattr(result, "meta", None) or getattr(result, "attrs", None) or {}
    if REPORT not in metadata:
        raise BitencError(
            "report_of", "the model carries no report", "Give what tvm_bitenc.quantize returned"
        )
    return QuantizationReport.from_json(str(metadata[REPORT]))


class ErrorMeter:
    """Relative squared error of tensors, summed over batches."""

    def __init__(self):
        self.sums: dict[str, list[float]] = {}

    def add(self, floats: Mapping, quantized: Mapping, names: Sequence[str]) -> None:
        """Compare tensors by name."""
        for name in names:
            y, q = floats[name], quantized[name]
            sums = self.sums.setdefault(name, [0.0, 0.0])
            sums[0] += _power(q - y)
            sums[1] += _power(y)

    def error(self, name: str) -> float:
        """Squared error of one tensor relative to its power."""
        error, power = self.sums[name]
        return error / max(power, 1e-30)

    def mean(self, names: Sequence[str]) -> float:
        """Mean of several tensors' errors."""
        return sum(map(self.error, names)) / len(names)


def _power(x: Tensor) -> float:
    """Sum of squares of a torch tensor."""
    return float(x.square().sum())
