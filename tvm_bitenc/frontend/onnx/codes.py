"""`Codes`: integer tensors of which the real numbers behind are known.

What ONNX computes in int8 or uint8 is carried as float32 numbers on a grid, for which later passes
have codes. An integer tensor is made of them only where something reads it as such.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from tvm import relax

from ...op.quantize import quantize
from .grid import Grid


@dataclass(frozen=True)
class Codes:
    """Integers ``q`` of which ``(q - zero_point) * scale`` are at hand, rounded or to be rounded.

    Parameters
    ----------
    source : relax.Expr
        Of float32.
    grid : Grid
    dtype : str
        Of the integers.
    layer : str
        Name of the quantizer in reports.
    is_on_grid : bool
        `source` has been rounded to the grid.
    """

    source: relax.Expr
    grid: Grid
    dtype: str
    layer: str
    is_on_grid: bool = False

    @property
    def is_per_tensor(self) -> bool:
        """Whether one scale and one zero point serve all elements."""
        return self.grid.scale.size == self.grid.zero_point.size == 1

    def levels(self, builder: relax.BlockBuilder) -> relax.Expr:
        """Return the real numbers, float32."""
        if self.is_on_grid:
            return self.source
        encoding, axis = self.grid.encoding(len(self.source.ty.shape), is_constant=False)
        return builder.emit(quantize(self.source, encoding, axis, self.layer), self.layer)

    def integers(self, builder: relax.BlockBuilder) -> relax.Expr:
        """Return the integers, for what computes with them."""
        emit, grid = builder.emit, self.grid
        scale, zero_point = (relax.const(v) for v in (grid.scale, grid.zero_point))
        position = emit(relax.op.round(emit(relax.op.divide(self.levels(builder), scale))))
        return emit(relax.op.astype(emit(relax.op.add(position, zero_point)), self.dtype))

    def steps(self, builder: relax.BlockBuilder) -> relax.Expr:
        """Return ``q - zero_point`` in float32, quantized: a layer can read it."""
        if self.grid.scale == 1:
            return self.levels(builder)
        position = builder.emit(relax.op.divide(self.source, relax.const(self.grid.scale)))
        encoding, _ = replace(self.grid, scale=np.float32(1)).encoding(0, is_constant=False)
        return builder.emit(quantize(position, encoding, layer=self.layer), self.layer)


def limits(dtype: str) -> tuple[int, int, int]:
    """Bits, smallest and largest integer of a dtype."""
    bits = int(dtype.lstrip("uint"))
    low = 0 if dtype.startswith("u") else -(2 ** (bits - 1))
    return bits, low, low + 2**bits - 1


def step_grid(dtype: str, zero_point: ArrayLike, where: str) -> Grid:
    """Grid of ``q - zero_point`` for all integers q of a dtype."""
    one, zero = np.ones((), np.float32), np.asarray(zero_point, np.float32)
    return Grid(one, zero, *limits(dtype), is_zero_point_late=True, where=where)
