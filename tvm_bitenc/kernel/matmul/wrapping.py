"""Unsigned arithmetic of 32 bits: accumulators fit, what leads to them may overflow."""

from __future__ import annotations

from tvm import tirx
from tvm.tirx.script import builder as T

from ..tir import Vector, reinterpret, vector


def wrapped(value: int) -> Vector:
    """A number modulo 2^32."""
    return tirx.const(value % 2**32, "uint32")


def wrapping(value: Vector, lanes: int) -> Vector:
    """A vector of int32 as one that may overflow."""
    return reinterpret(vector("uint32", lanes), value)


def sum_of_lanes(value: Vector, lanes: int) -> Vector:
    """Sum of the lanes of a vector, a power of two of them."""
    while lanes > 1:
        lanes //= 2
        low, high = (tirx.Shuffle([value], list(range(i, i + lanes))) for i in (0, lanes))
        value = T.Bind(T.Bind(low) + T.Bind(high))
    return value
