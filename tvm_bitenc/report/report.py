"""`Report`: one row per layer, and what stayed float with the reason."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import tvm

from ..op.matmul import branch_matmul_op
from ..op.packed import conv_layer_of, packed_conv2d_op
from ..op.registration import describe, is_call_to
from ..te.conv_layer import ConvLayer
from ..transform.lower import float_layers
from ..transform.rewrite import rewrite_calls

FLOAT_BYTES = 4


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
        Multiply-accumulates per run.
    float_bytes, stored_bytes : int
        Size of the weights in float32 and as the kernel reads them.
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


@dataclass(frozen=True)
class FloatLayer:
    """One convolution or matrix product that stayed float, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Report:
    """What each layer became; `str` gives a table."""

    target: str
    layers: list[LayerRow] = field(default_factory=list)
    float_layers: list[FloatLayer] = field(default_factory=list)

    @property
    def float_bytes(self) -> int:
        """Weights of the branch layers in float32."""
        return sum(row.float_bytes for row in self.layers)

    @property
    def stored_bytes(self) -> int:
        """The same weights as the kernels read them."""
        return sum(row.stored_bytes for row in self.layers)

    def to_dict(self) -> dict:
        """Plain numbers and strings, as JSON holds them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict) -> Report:
        """Inverse of `to_dict`."""
        return cls(
            content["target"],
            [LayerRow(**row) for row in content["layers"]],
            [FloatLayer(**row) for row in content["float_layers"]],
        )

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings and cells of the layers."""
        headings = ["layer", "shape", "bits", "out", "strategy", "MACs", "float32", "stored"]
        cells = [
            [
                row.name,
                row.shape,
                f"W{row.weight_bits}A{row.act_bits}",
                "int32" if row.out_bits == 32 else f"A{row.out_bits}",
                row.strategy,
                f"{row.macs:,}",
                f"{row.float_bytes:,}",
                f"{row.stored_bytes:,}",
            ]
            for row in self.layers
        ]
        total = [f"{sum(row.macs for row in self.layers):,}"]
        total += [f"{self.float_bytes:,}", f"{self.stored_bytes:,}"]
        return headings, [*cells, ["total", "", "", "", "", *total]]

    def __str__(self) -> str:
        headings, cells = self.table()
        lines = [f"target {self.target}; sizes are bytes of weights", *_aligned(headings, cells)]
        lines += [f"float: {layer.name}: {layer.reason}" for layer in self.float_layers]
        return "\n".join(lines)

    def to_html(self, path: str | Path) -> Path:
        """Write the table as a page; needs the extra `report`."""
        from .html import write_report

        return write_report(self, Path(path))


def _aligned(headings: list[str], cells: list[list[str]]) -> list[str]:
    """Columns side by side: text to the left, the three columns of numbers to the right."""
    rows = [headings, *cells]
    widths = [max(len(row[i]) for row in rows) for i in range(len(headings))]

    def line(row: list[str]) -> str:
        padded = [
            cell.rjust(width) if i >= len(row) - 3 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ]
        return "  ".join(padded).rstrip()

    return [line(headings), "  ".join("-" * width for width in widths), *map(line, cells)]


def report_of(mod: tvm.IRModule, target: str) -> Report:
    """Describe a module as it is just before it is scheduled."""
    rows: list[LayerRow] = []

    def note(call, _graph) -> None:
        if is_call_to(call, packed_conv2d_op):
            rows.append(_row(conv_layer_of(call)))
        elif is_call_to(call, branch_matmul_op):
            rows.append(_product_row(call))

    rewrite_calls(mod, note)
    left = [FloatLayer(describe(call), reason) for call, reason in float_layers(mod)]
    return Report(target, rows, left)


def _product_row(call) -> LayerRow:
    """A product of two activations: there are no weights to store."""
    batch, rows, columns = (int(size) for size in call.ty.shape)
    terms = int(call.args[0].ty.shape[2])
    bits = (len(call.attrs[f"{which}_coefficients"]) for which in ("weight", "act"))
    return LayerRow(
        str(call.attrs["layer"]),
        f"{rows}x{terms} {terms}x{columns}" + (f" @{batch}" if batch > 1 else ""),
        *bits,
        out_bits=32,
        strategy=str(call.attrs["strategy"]),
        macs=batch * rows * terms * columns,
        float_bytes=0,
        stored_bytes=0,
    )


def _row(layer: ConvLayer) -> LayerRow:
    _, _, _, in_channels = layer.input_shape
    kernel = "x".join(map(str, layer.kernel_size))
    out = "x".join(map(str, layer.output_size))
    stride = layer.geometry.strides[0]
    shape = f"{kernel} {in_channels}->{layer.out_channels} @{out}" + (
        f"/{stride}" if stride > 1 else ""
    )
    weights = math.prod(layer.weight_codes.shape)
    return LayerRow(
        layer.name,
        shape,
        layer.weight_bits,
        layer.act_bits,
        layer.out_bits,
        layer.strategy,
        layer.macs,
        FLOAT_BYTES * weights,
        layer.stored_bytes,
    )
