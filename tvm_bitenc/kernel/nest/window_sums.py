"""Sums of one number of every input pixel under the window of every output pixel."""

from __future__ import annotations

from tvm import tirx
from tvm.tirx.script import builder as T

from ...layer import ConvLayer
from .geometry import padded_width, prepared_rows


class WindowSums:
    """Numbers of the prepared pixels of a task, and their sums under its windows.

    Parameters
    ----------
    layer : ConvLayer
    rows : int
        Output rows of a task.
    """

    def __init__(self, layer: ConvLayer, rows: int):
        self.layer, self.rows = layer, rows
        self.width, self.out_width = padded_width(layer), layer.output_size[1]
        size = prepared_rows(layer, rows) * self.width
        self._numbers = T.alloc_buffer((size,), "int32")

    def put(self, pixel, number) -> None:
        """Set the number of a prepared pixel."""
        T.buffer_store(self._numbers, number, [pixel])

    def add_up(self) -> None:
        """Add up the numbers under all windows."""
        geometry, out_width = self.layer.geometry, self.out_width
        self._totals = T.alloc_buffer((self.rows * out_width,), "int32")
        with T.serial(0, self.rows) as row:
            target = T.Bind(row * out_width)
            with T.serial(0, out_width) as column:
                T.buffer_store(self._totals, 0, [target + column])
            with T.grid(*self.layer.kernel_size) as (i, j):
                source_row = row * geometry.strides[0] + i * geometry.dilation[0]
                source = T.Bind(source_row * self.width + j * geometry.dilation[1])
                with T.serial(0, out_width) as column:  # Innermost, so that LLVM makes vectors.
                    value = self._numbers[source + column * geometry.strides[1]]
                    total = self._totals[target + column] + value
                    T.buffer_store(self._totals, total, [target + column])

    def under(self, row, column) -> tirx.PrimExpr:
        """Sum under the window of an output pixel."""
        return self._totals[row * self.out_width + column]
