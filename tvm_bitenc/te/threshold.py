"""Threshold unit: integer accumulators to codes."""

from __future__ import annotations

from tvm import te, tirx


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
    step = te.reduce_axis((0, thresholds.shape[0]), "step")

    def code(*index):
        channel = index[channel_axis]
        reached = acc(*index) * direction[channel] >= thresholds[step, channel]
        return te.sum(tirx.Cast("uint8", reached), axis=step)

    return te.compute(acc.shape, code, name="code")
