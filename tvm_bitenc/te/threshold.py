"""Threshold unit: integer accumulators to codes."""

from __future__ import annotations

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


def planes_of_reached(reached: list) -> list:
    """Bits of the number of thresholds that are reached, lowest first.

    Thresholds rise, so bit b is the parity of those reached among every 2^b-th.
    """
    planes = []
    for bit in range(len(reached).bit_length()):
        plane = None
        for j in range(1 << bit, len(reached) + 1, 1 << bit):
            plane = reached[j - 1] if plane is None else plane ^ reached[j - 1]
        planes.append(plane)
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
