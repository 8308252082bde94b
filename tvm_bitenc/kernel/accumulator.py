r"""What the sums of a kernel mean: how they lead to accumulators, and thresholds in their terms.

Every product computes a sum r, and

.. math:: acc = C + f\,r + g_o\,U

with constants C by border class and output channel, one factor f, a factor :math:`g_o` per output
channel, and U the sum of the activation codes under the window. Thresholds move to the side of r,
so that comparing costs nothing but the comparison.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..layer import ConvLayer

MAX_COMPARED = 3  # Thresholds up to which comparing with each is cheapest.


@dataclass(frozen=True, eq=False)
class AccumulatorTerms:
    """How a sum leads to an accumulator.

    Parameters
    ----------
    constant : ndarray of int64, shape (row classes, column classes, out_channels)
    factor : int
    act_factor : ndarray of int64, shape (out_channels,)
    low, high : int
        Bounds of r.
    inverted : ndarray of bool, shape (out_channels,), optional
        Channels whose f has the opposite sign: see `differing_bits`; or their weights are those of
        the sum, negated.
    """

    constant: np.ndarray
    factor: int
    act_factor: np.ndarray
    low: int
    high: int
    inverted: np.ndarray | None = None

    @property
    def factor_by_channel(self) -> np.ndarray:
        """f, where inverted channels have the opposite sign: shape (out_channels,)."""
        inverted = np.zeros(len(self.act_factor), bool) if self.inverted is None else self.inverted
        return np.where(inverted, -self.factor, self.factor)

    @property
    def has_act_sum(self) -> bool:
        """Whether U is needed."""
        return bool(np.any(self.act_factor))

    def of_channels(self, layer: ConvLayer) -> AccumulatorTerms:
        """Return the terms of output channels that share sums, see `ConvLayer.rows_and_signs`."""
        if not layer.is_shared:
            return self
        rows, signs = layer.rows_and_signs
        inverted = np.zeros(len(rows), bool) if self.inverted is None else self.inverted[rows]
        inverted = inverted ^ (signs < 0)
        return replace(
            self,
            constant=self.constant[:, :, rows] * signs,
            act_factor=self.act_factor[rows] * signs,
            inverted=inverted if inverted.any() else None,
        )


def inverted_channels(layer: ConvLayer, most_steps: int) -> np.ndarray | None:
    """Channels whose weight bits are better stored inverted, so that all codes rise with the sums.

    None where that gains nothing: without thresholds, with too many to be compared one by one, or
    where the sums of activations count as well.
    """
    if layer.thresholds is None or len(layer.thresholds) > most_steps or layer.has_act_sum:
        return None
    return layer.threshold_unit[1] > 0


def differing_bits(
    layer: ConvLayer, inverted: np.ndarray | None, channels: int
) -> AccumulatorTerms:
    """Terms of sums that count differing bits: sum over branches of coefficients times popcount.

    Against inverted weights the bits that differ are all others: those of the padding included.

    Parameters
    ----------
    layer : ConvLayer
    inverted : ndarray of bool, shape (out_channels,), optional
    channels : int
        Input channels of a group with padding.
    """
    geometry, (kernel_h, kernel_w) = layer.geometry, layer.kernel_size
    constant = layer.border[0].astype(np.int64)
    high = kernel_h * kernel_w * channels
    high *= geometry.branch_sum
    if inverted is not None:
        constant = np.where(inverted, constant - 2 * high, constant)
    return AccumulatorTerms(
        constant, -2, 2 * layer.weight_offset.astype(np.int64), 0, high, inverted
    )


def thresholds_of(
    layer: ConvLayer, terms: AccumulatorTerms, factor: np.ndarray | int, low: int, high: int
) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds in terms of x, where acc = constant + factor * x.

    The code is the number of thresholds that x reaches; where `flip` is set, it is the code with
    all bits inverted: a sum that falls as the accumulator rises counts what it doesn't reach.

    Parameters
    ----------
    low, high : int
        Bounds of x; thresholds are clipped to low .. high + 1.

    Returns
    -------
    thresholds : ndarray of int64, shape (row classes, column classes, steps, out_channels)
        Rising along the steps.
    flip : ndarray of bool, shape (out_channels,)
    """
    thresholds, direction = layer.threshold_unit
    slope = factor * direction
    distance = thresholds - (direction * terms.constant)[:, :, None, :]
    reached_from = -(-distance // slope)
    reached_until = np.floor_divide(distance, slope) + 1
    flip = slope < 0
    found = np.where(flip, reached_until[:, :, ::-1], reached_from)
    return np.clip(found, low, high + 1), flip
