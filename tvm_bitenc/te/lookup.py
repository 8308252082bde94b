"""Codes from codes by a table, on packed planes: the plain definition."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import te, tirx

from .pack import pack, unpack


def lookup(codes: Sequence[te.Tensor], table: te.Tensor) -> te.Tensor:
    """Codes ``table[a]`` or ``table[a, b]``, element by element, of any shape."""

    def element(*index) -> tirx.Expr:
        return table(*(tirx.Cast("int32", tensor(*index)) for tensor in codes))

    return te.compute(codes[0].shape, element, name="lookup")


def packed_lookup(
    planes: Sequence[te.Tensor], table: te.Tensor, bits: int, channels: int
) -> te.Tensor:
    """Return the same on planes, uint64 (N, H, W, bits, words); `bits` are those of the result."""
    return pack(lookup([unpack(tensor, channels) for tensor in planes], table), bits)
