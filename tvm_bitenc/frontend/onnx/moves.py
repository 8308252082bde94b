"""Ops that only move or choose among codes are converted on the real numbers behind them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from onnx import NodeProto
from tvm import relax

from .importer import Converter, Importer

# Ops that move or choose among elements, whatever these stand for.
MOVING = frozenset(
    ("DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice")
).union(("SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"))


def move(importer: Importer, node: NodeProto, convert: Converter) -> bool:
    """Convert an op that moves elements on the real numbers behind codes, if its input has them.

    What is chosen from a quantized constant, as rows of a table are, is quantized as well.
    """
    name = node.input[0] if node.input else ""
    codes, grid = importer.codes.get(name), importer.grids.get(name)
    has_one = node.op_type == "Split" or not any(node.output[1:])
    if node.op_type not in MOVING or not has_one:
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
    tables: tuple[dict[str, Any], ...] = (
        importer.codes,
        importer.expressions,
        importer.constants,
    )
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
