"""`Codes`: integer tensors of which the real numbers behind are known.

What ONNX computes in int8 or uint8 is carried as float32 numbers on a grid, for which later passes
have codes. An integer tensor is made of them only where something reads it as such.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto
from tvm import relax

from ...op.quantize import quantize
from .grid import Grid

if TYPE_CHECKING:
    from .importer import Converter, Importer

# Ops that move or choose among elements, whatever these stand for.
MOVING = frozenset(
    ("DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice")
).union(("SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"))


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


def step_grid(dtype: str, zero_point, where: str) -> Grid:
    """Grid of ``q - zero_point`` for all integers q of a dtype."""
    one, zero_point = np.float32(1), np.asarray(zero_point, np.float32)
    return Grid(one, zero_point, *limits(dtype), is_zero_point_late=True, where=where)


def move(importer: Importer, node: NodeProto, convert: Converter) -> bool:
    """Convert an op that moves elements on the real numbers behind codes, if its input has them.

    What is chosen from a quantized constant, as rows of a table are, is quantized as well.
    """
    name = node.input[0] if node.input else ""
    codes, grid = importer.codes.get(name), importer.grids.get(name)
    if node.op_type not in MOVING:
        return False
    if grid is not None and grid.scale.size == grid.zero_point.size == 1:
        with standing_for(importer, name, importer.operand(name, node)):
            convert(importer, node)
        return True
    if codes is None or not codes.is_per_tensor:
        return False
    with standing_for(importer, name, codes.levels(importer.builder)):
        convert(importer, node)
    for output in node.output:
        if output in importer.expressions:
            moved = importer.expressions.pop(output)
            importer.codes[output] = replace(codes, source=moved, is_on_grid=True)
    return True


@contextmanager
def standing_for(importer: Importer, name: str, expr: relax.Expr) -> Iterator[None]:
    """Let an expression stand for a tensor of the graph meanwhile."""
    tables = (importer.codes, importer.expressions, importer.constants)
    kept = [(table, table.pop(name)) for table in tables if name in table]
    importer.expressions[name] = expr
    try:
        yield
    finally:
        del importer.expressions[name]
        for table, value in kept:
            table[name] = value


def narrow(importer: Importer, node: NodeProto) -> bool:
    """Convert a Clip of codes: it leaves fewer of them, which may need fewer bits.

    As Brevitas writes quantizers of less than 8 bits.
    """
    codes = importer.codes.get(node.input[0])
    if codes is None:
        return False
    low, high = codes.grid.low, codes.grid.high
    bounds = {i: importer.parameter(node, i, name) for i, name in ((1, "min"), (2, "max"))
              if i < len(node.input) and node.input[i]}  # fmt: skip
    low = max(low, int(bounds.get(1, low)))
    high = min(high, int(bounds.get(2, high)))
    zero_point = codes.grid.zero_point
    if low >= high or zero_point.min() < low or zero_point.max() > high:
        return False  # Such integers are computed as they are.
    grid = replace(codes.grid, low=low, high=high, bits=(high - low).bit_length())
    importer.codes[node.output[0]] = replace(codes, grid=grid, is_on_grid=False)
    return True
