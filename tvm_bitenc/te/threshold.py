"""Threshold unit: integer accumulators to codes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import te, tirx

MAX_COUNTED = 15  # Up to 4 bits, comparing with every threshold is faster than searching.


def threshold(
    acc: te.Tensor, thresholds: te.Tensor, direction: te.Tensor, channel_axis: int
) -> te.Tensor:
    """Codes (uint8): how many thresholds ``direction * acc`` reaches.

    Parameters
    ----------
    acc : te.Tensor of int32
    thresholds : te.Tensor of int32, shape (2^bits - 1, channels), rising
    direction : te.Tensor of int32, shape (channels,), +1 or -1
    channel_axis : int
    """
    steps = int(thresholds.shape[0])
    if steps > MAX_COUNTED:
        return _search(acc, thresholds, direction, channel_axis)
    step = te.reduce_axis((0, steps), "step")

    def count(*index):
        channel = index[channel_axis]
        reached = acc(*index) * direction[channel] >= thresholds[step, channel]
        return te.sum(tirx.Cast("uint8", reached), axis=step)

    return te.compute(acc.shape, count, name="code")


def reaches(x: tirx.Expr, bound: float, limit: tirx.Expr | None = None) -> tirx.Expr:
    """Whether float32 numbers are a bound or more; above 0 where it is the least number above 0.

    Vectors of 32-bit ARM take so small a number for 0.

    Parameters
    ----------
    x : tirx.Expr of float32
    bound : float
    limit : tirx.Expr of float32, optional
        Where the bound is at run time.
    """
    if bound == np.nextafter(np.float32(0), np.float32(1)):
        return x > tirx.const(0, "float32")
    return x >= (tirx.const(float(bound), "float32") if limit is None else limit)


def codes_reached(thresholds: np.ndarray) -> np.ndarray:
    """Codes from each threshold on, once for equal ones: how many are reached with the last.

    Thresholds repeat where codes are left out. A thermometer of three planes has 7 of them, of
    which 3 differ, and the codes 1, 3 and 7: each plane is one comparison.

    Parameters
    ----------
    thresholds : ndarray, shape (2^bits - 1, ...)
        Rising along axis 0.

    Returns
    -------
    ndarray of int64
        Rising; threshold number ``code - 1`` is the one to compare with.
    """
    rows = thresholds.reshape(len(thresholds), -1)
    return 1 + np.flatnonzero([*np.any(rows[1:] != rows[:-1], axis=1), True])


def planes_of_reached(reached: list, codes: Sequence[int]) -> list:
    """Bits of the code from the last threshold that is reached, lowest first.

    Thresholds rise, so a bit is the parity of those reached among the ones where it changes.

    Parameters
    ----------
    reached : list of expression
    codes : sequence of int
        Rising, the code from each threshold on.
    """
    planes: list = [None] * int(codes[-1]).bit_length()
    for step, before, code in zip(reached, [0, *codes], codes):
        for bit, plane in enumerate(planes):
            if (int(before) ^ int(code)) >> bit & 1:
                planes[bit] = step if plane is None else plane ^ step
    return planes


def search_stages(bits: int) -> list[str]:
    """Names of the stages of a binary search, one per bit of the code, in order."""
    return [f"code_bit{bit}" for bit in reversed(range(bits))]


def _search(acc: te.Tensor, thresholds: te.Tensor, direction: te.Tensor, channel_axis: int):
    """Binary search, one bit of the code after another from the highest down."""
    bits = int(thresholds.shape[0]).bit_length()

    def add_bit(found: te.Tensor | None, bit: int, name: str) -> te.Tensor:
        size, zero = tirx.const(1 << bit, "int32"), tirx.const(0, "int32")

        def stage(*index):
            channel = index[channel_axis]
            base = zero if found is None else found(*index)
            reached = acc(*index) * direction[channel] >= thresholds[base + (size - 1), channel]
            return base + tirx.Select(reached, size, zero)

        return te.compute(acc.shape, stage, name=name)

    top, *lower = zip(reversed(range(bits)), search_stages(bits))
    found = add_bit(None, *top)
    for bit, name in lower:
        found = add_bit(found, bit, name)
    return te.compute(acc.shape, lambda *index: tirx.Cast("uint8", found(*index)), name="code")
