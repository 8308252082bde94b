"""Affine functions that give codes, or stay close below them; all by brute force."""

import numpy as np
import pytest

from tvm_bitenc.kernel.epilogue.affine_fit import affine_below, fit_affine

OUT_CHANNELS = 6


@pytest.fixture
def layer_of(conv_layer):
    """A layer of 2-bit weights and activations under these thresholds."""
    codes = np.random.default_rng(0).integers(0, 4, (OUT_CHANNELS, 5, 3, 3), dtype=np.uint8)
    return lambda thresholds, direction: conv_layer(codes, 0, thresholds, direction)


def even(bits, spread, shift):
    """Thresholds of a batch-norm and a quantizer, another slope for each channel."""
    count = 2**bits - 1
    steps = np.linspace(-1, 1, count)[:, None] * spread * np.linspace(0.5, 1.5, OUT_CHANNELS)
    return np.ceil(steps + shift + np.linspace(-0.4, 0.4, OUT_CHANNELS)).astype(np.int32)


def codes_of(layer, channel, acc):
    along = acc * int(layer.direction[channel])
    return np.searchsorted(layer.thresholds[:, channel], along, side="right")


DIRECTION = [1, -1, 1, -1, -1, 1]


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("spread, shift", [(60, 0), (200, 7), (3000, -900), (40, 5000)])
def test_a_line_is_right_at_every_accumulator(bits, spread, shift, layer_of):
    layer = layer_of(even(bits, spread, shift), DIRECTION)
    affine = fit_affine(layer)
    assert affine is not None
    slope, intercept = affine.slope, affine.intercept
    low, high = layer.accumulator_range
    for channel in range(OUT_CHANNELS):
        acc = np.arange(low[channel], high[channel] + 1)
        value = acc.astype(slope.dtype) * slope[channel] + intercept[channel]
        code = np.clip(value.astype(np.int32), 0, 2**bits - 1)  # Towards 0, as kernels do.
        assert np.array_equal(code, codes_of(layer, channel, acc))


def test_thresholds_on_no_line_have_none(layer_of):
    limits = even(3, 60, 0)
    limits[3:, 2] += 40
    assert fit_affine(layer_of(limits, DIRECTION)) is None
    assert fit_affine(layer_of(even(3, 60, 0), DIRECTION)) is not None


def test_constant_channels_have_a_line(layer_of):
    limits = np.tile(np.array([[-(10**6)], [-(10**6)], [10**6]]), OUT_CHANNELS)
    affine = fit_affine(layer_of(limits, DIRECTION))
    assert not affine.slope.any()
    assert np.array_equal(np.floor(affine.intercept), np.full(OUT_CHANNELS, 2))


def test_a_line_beyond_float32_is_float64(conv_layer):
    """Thresholds above 2^24 lie closer than float32's integers."""
    codes = np.full((2, 4096, 1, 1), 255, np.uint8)
    limits = 2**24 + np.arange(15)[:, None] * 3 + np.array([1, 2])
    layer = conv_layer(codes, 255, limits, [1, 1], act_bits=8, weight_bits=8)
    affine = fit_affine(layer)
    slope, intercept = affine.slope, affine.intercept
    assert slope.dtype == np.float64
    acc = np.arange(2**24 - 50, 2**24 + 100)
    for channel in range(2):
        code = np.clip(np.floor(acc * slope[channel] + intercept[channel]), 0, 15)
        assert np.array_equal(code, codes_of(layer, channel, acc))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("spread, shift", [(60, 0), (200, 7), (3000, -900), (40, 5000)])
def test_codes_lie_little_above_the_affine_below(bits, spread, shift, layer_of):
    noise = np.random.default_rng(bits).integers(-1, 2, (2**bits - 1, OUT_CHANNELS))
    layer = layer_of(np.sort(even(bits, spread, shift) + noise, axis=0), DIRECTION)
    affine, rounds = affine_below(layer)
    slope, intercept = affine.slope, affine.intercept
    for channel, (low, high) in enumerate(zip(*layer.accumulator_range)):
        acc = np.arange(low, high + 1)
        line = np.float32(slope[channel]) * acc.astype(np.float32) + intercept[channel]
        start = np.clip(np.floor(line), 0, 2**bits - 2**rounds)
        above = codes_of(layer, channel, acc) - start
        assert above.min() >= 0 and above.max() <= 2**rounds - 1


def test_one_comparison_is_left_where_thresholds_lie_near_a_line(layer_of):
    limits = even(3, 60, 0)
    limits[1::2] += 1  # No line gives these.
    layer = layer_of(limits, DIRECTION)
    assert fit_affine(layer) is None
    assert affine_below(layer)[1] == 1


def test_constant_channels_do_not_widen_the_search(layer_of):
    """Thresholds that all accumulators reach, or none, bound no line."""
    limits = even(3, 60, 0)
    limits[1::2] += 1
    limits[:, 1], limits[:, 2] = -(10**6), 10**6
    affine, rounds = affine_below(layer_of(limits, DIRECTION))
    assert rounds == 1
    assert affine.slope[1] == affine.slope[2] == 0
    assert affine.intercept[1] > 7 and affine.intercept[2] < 1
