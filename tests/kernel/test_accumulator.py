"""What sums mean, and thresholds in their terms; all by brute force."""

import numpy as np
import pytest

from tvm_bitenc.encoding import planes
from tvm_bitenc.kernel.accumulator import (
    AccumulatorTerms,
    differing_bits,
    inverted_channels,
    thresholds_of,
)

DIRECTION = np.array([1, -1, 1, -1, -1, 1])
PER_GROUP, SIZE, PADDED_CHANNELS = 5, (4, 4), 8


@pytest.fixture
def layer(conv_layer):
    def make(limits=None, direction=DIRECTION, offset=0, **geometry):
        shape = (len(DIRECTION), PER_GROUP, 3, 3)
        codes = np.random.default_rng(0).integers(0, 4, shape, dtype=np.uint8)
        return conv_layer(codes, offset, limits, direction, SIZE, **geometry)

    return make


def codes_of(layer, channel, acc):
    along = acc * int(layer.direction[channel])
    return np.searchsorted(layer.thresholds[:, channel], along, side="right")


@pytest.mark.parametrize("factor", [-2, 2, 4, -1, 1, 3])
def test_thresholds_of_sums(factor, layer):
    rng = np.random.default_rng(1)
    limits = np.sort(rng.integers(-90, 90, (7, len(DIRECTION))), axis=0)
    limits[:, 1], limits[:3, 2], limits[4:, 3] = 10**6, -(10**6), 10**6  # Never, always, never.
    made = layer(limits)
    constant = rng.integers(-30, 30, (2, 3, len(DIRECTION)))
    low, high = -20, 40
    terms = AccumulatorTerms(constant, factor, np.zeros(len(DIRECTION), np.int64), low, high)
    found, flip = thresholds_of(made, terms, factor, low, high)
    assert found.min() >= low and found.max() <= high + 1 and np.all(np.diff(found, axis=2) >= 0)
    x = np.arange(low, high + 1)
    for row, column, channel in np.ndindex(constant.shape):
        count = (x[:, None] >= found[row, column, :, channel]).sum(axis=1)
        count = count ^ 7 if flip[channel] else count
        expected = codes_of(made, channel, constant[row, column, channel] + factor * x)
        assert np.array_equal(count, expected)


def window_of(act_codes, row, column, padding):
    """Codes under a window, 0 where it is padding, and which of its taps lie inside."""
    top = left = padding
    found = np.zeros((PER_GROUP, 3, 3), np.int64)
    inside = np.zeros((3, 3), bool)
    for i, j in np.ndindex(3, 3):
        y, x = row + i - top, column + j - left
        if 0 <= y < SIZE[0] and 0 <= x < SIZE[1]:
            found[:, i, j], inside[i, j] = act_codes[:, y, x], True
    return found, inside


@pytest.mark.parametrize("is_inverted", [False, True])
@pytest.mark.parametrize("offset", [0, -3])
def test_differing_bits_lead_to_accumulators(offset, is_inverted, layer):
    """The formula at the head of `accumulator.py`, for every pixel, border and padding included."""
    made = layer(offset=offset, act_offset=1, padding=(1, 1, 1, 1))
    inverted = DIRECTION > 0 if is_inverted else None
    terms = differing_bits(made, inverted, PADDED_CHANNELS)
    _, row_class, column_class = made.border
    act_codes = np.random.default_rng(2).integers(0, 4, (PER_GROUP, *SIZE))
    missing = [(0, PADDED_CHANNELS - PER_GROUP), (0, 0), (0, 0)]
    weight_planes = np.pad(planes(made.weight_codes, 2) > 0, [(0, 0), (0, 0), *missing])
    if is_inverted:
        weight_planes ^= inverted[:, None, None, None]
    factors = np.broadcast_to(terms.factor_by_channel, len(DIRECTION))
    for row, column in np.ndindex(SIZE):
        codes, inside = window_of(act_codes, row, column, 1)
        act_planes = np.pad(planes(codes.astype(np.uint8), 2) > 0, [(0, 0), *missing])
        integers = (2 * codes - 3 + 1) * inside
        for channel in range(len(DIRECTION)):
            r = sum(
                made.geometry.act_coefficients[k]
                * made.geometry.weight_coefficients[m]
                * int(np.sum(act_planes[k] ^ weight_planes[m, channel]))
                for k in range(2)
                for m in range(2)
            )
            assert terms.low <= r <= terms.high
            acc = (
                terms.constant[row_class[row], column_class[column], channel]
                + factors[channel] * r
                + terms.act_factor[channel] * codes.sum()
            )
            assert acc == np.sum(integers * made.weight_integers[channel])


def test_falling_channels_are_inverted_where_that_saves_flipping(layer):
    limits = np.sort(np.random.default_rng(3).integers(-90, 90, (3, len(DIRECTION))), axis=0)
    assert np.array_equal(inverted_channels(layer(limits), 3), DIRECTION > 0)
    made = layer(limits)
    terms = differing_bits(made, inverted_channels(made, 3), PADDED_CHANNELS)
    _, flip = thresholds_of(made, terms, terms.factor_by_channel, terms.low, terms.high)
    assert not flip.any()
    assert inverted_channels(layer(limits), 2) is None
    assert inverted_channels(layer(limits, offset=1), 3) is None
    assert inverted_channels(layer(), 3) is None
