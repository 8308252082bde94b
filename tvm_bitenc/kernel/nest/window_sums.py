"""Sums of one number of every input pixel under the window of every output pixel."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script import builder as T

from ...layer import ConvLayer
from ..tir import Expr
from .geometry import padded_width, prepared_rows


class PixelNumbers:
    """Numbers of the prepared pixels of a task.

    Parameters
    ----------
    layer : ConvLayer
    rows : int
        Output rows of a task.
    """

    def __init__(self, layer: ConvLayer, rows: int):
        self.layer, self.rows = layer, rows
        size = prepared_rows(layer, rows) * padded_width(layer)
        self._numbers = T.alloc_buffer((size,), "int32")

    def put(self, pixel: Expr, number: Expr) -> None:
        """Set the number of a prepared pixel."""
        T.buffer_store(self._numbers, number, [pixel])

    def summed(self) -> WindowSums:
        """Add up the numbers under all windows."""
        layer, geometry, out_width = self.layer, self.layer.geometry, self.layer.output_size[1]
        totals = T.alloc_buffer((self.rows * out_width,), "int32")
        with T.serial(0, self.rows) as row:
            target = T.Bind(row * out_width)
            with T.serial(0, out_width) as column:
                T.buffer_store(totals, 0, [target + column])
            with T.grid(*layer.kernel_size) as (i, j):
                source_row = row * geometry.strides[0] + i * geometry.dilation[0]
                start = source_row * padded_width(layer) + j * geometry.dilation[1]
                source = T.Bind(start)
                with T.serial(0, out_width) as column:  # Innermost, so that LLVM makes vectors.
                    value = self._numbers[source + column * geometry.strides[1]]
                    total = totals[target + column] + value
                    T.buffer_store(totals, total, [target + column])
        return WindowSums(totals, out_width)


@dataclass(frozen=True, eq=False)
class WindowSums:
    """Sums under the windows of a task.

    Parameters
    ----------
    totals : flat buffer
        Of every output pixel.
    out_width : int
    """

    totals: tirx.Buffer
    out_width: int

    def under(self, row: Expr, column: Expr) -> Expr:
        """Sum under the window of an output pixel."""
        return self.totals[row * self.out_width + column]
