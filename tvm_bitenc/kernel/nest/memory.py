"""The memory of a kernel: its arguments as flat rows, and views of them in other types."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from ..tir import Expr, flat

PLANE_TYPES = ("uint8", "uint16", "uint32", "uint64")  # Bits of 8 to 64 channels.


@dataclass(frozen=True, eq=False)
class Memory:
    """Flat buffers of a kernel's arguments.

    Parameters
    ----------
    source : buffer
        The input.
    product_constants, epilogue_constants : sequence of buffer
    residual : buffer, optional
        What float steps add.
    out_views : dict of str to buffer
        The output by dtype: its own, and all that planes are stored in.
    epilogue_views : sequence of dict of str to buffer
        The same for every constant of the epilogue that is made of bytes; empty for others.
    out_dtype : str
    row_classes, column_classes : buffer, optional
        Border class of every output row and column; None where there is one class.
    pixel_count : buffer, optional
        Prepared pixels of a task, where LLVM must not know their number.
    row_numbers : buffer, optional
        See `channel_sums.py`.
    """

    source: tirx.Buffer
    product_constants: Sequence[tirx.Buffer]
    epilogue_constants: Sequence[tirx.Buffer]
    residual: tirx.Buffer | None
    out_views: Mapping[str, tirx.Buffer]
    epilogue_views: Sequence[Mapping[str, tirx.Buffer]]
    out_dtype: str
    row_classes: tirx.Buffer | None = None
    column_classes: tirx.Buffer | None = None
    pixel_count: tirx.Buffer | None = None
    row_numbers: tirx.Buffer | None = None

    @property
    def out(self) -> tirx.Buffer:
        """The output in its own type."""
        return self.out_views[self.out_dtype]


def declare_memory(
    source: tirx.Buffer,
    residual: tirx.Buffer | None,
    product_constants: Sequence[tirx.Buffer],
    epilogue_constants: Sequence[tirx.Buffer],
    own: Mapping[str, tirx.Buffer],
    out: tirx.Buffer,
) -> Memory:
    """Declare all rows at the head of a function, outside of its loops.

    Parameters
    ----------
    source, residual, out : buffer
        As the caller has them.
    product_constants, epilogue_constants : sequence of buffer
    own : dict of str to buffer
        Constants of the loops themselves, by field of `Memory`.
    """
    source_row = _row(source)
    of_product = [_row(buffer) for buffer in product_constants]
    of_epilogue = [_row(buffer) for buffer in epilogue_constants]
    of_nest = {name: _row(buffer) for name, buffer in own.items()}
    residual_row = None if residual is None else flat(residual, elements_of(out), "float32")
    out_dtype = str(out.dtype)
    out_views = {out_dtype: _view(out, out_dtype)}
    views: list[dict[str, tirx.Buffer]] = [{} for _ in of_epilogue]
    for dtype in PLANE_TYPES:
        if dtype not in out_views:
            out_views[dtype] = _view(out, dtype)
        for buffer, found in zip(of_epilogue, views):
            if str(buffer.dtype) == "uint8":
                found[dtype] = _view(buffer, dtype)
    constants = (of_product, of_epilogue)
    return Memory(source_row, *constants, residual_row, out_views, views, out_dtype, **of_nest)


def elements_of(buffer: tirx.Buffer) -> Expr:
    """Number of elements, an expression where the batch is dynamic."""
    first, *others = buffer.shape
    first = int(first) if isinstance(first, tirx.IntImm) else first
    return first * math.prod(map(int, others))


def _row(buffer: tirx.Buffer) -> tirx.Buffer:
    return flat(buffer, elements_of(buffer), str(buffer.dtype))


def _view(buffer: tirx.Buffer, dtype: str) -> tirx.Buffer:
    """As a row of another type; at least one element of it."""
    size = elements_of(buffer) * _bytes(str(buffer.dtype))
    if isinstance(size, int):
        size = max(size, _bytes(dtype))
    return flat(buffer, size // _bytes(dtype), dtype)


def _bytes(dtype: str) -> int:
    return np.dtype(dtype).itemsize
