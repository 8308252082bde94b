"""How sums become codes: lines, thresholds on raw sums, and bits of counts; all by brute force."""

import numpy as np
import pytest

from tvm_bitenc.kernel.epilogue import planes_of_reached
from tvm_bitenc.kernel.lines import fit_line, line_below
from tvm_bitenc.kernel.raw import Raw, thresholds_of
from tvm_bitenc.te.conv_layer import BranchGeometry, ConvLayer

OUT_CHANNELS = 6


def layer_of(thresholds, direction, seed=0):
    """A layer of 2-bit weights and activations under these thresholds."""
    codes = np.random.default_rng(seed).integers(0, 4, (OUT_CHANNELS, 5, 3, 3), dtype=np.uint8)
    geometry = BranchGeometry((1, 2), (1, 2), 0)
    offset = np.zeros(OUT_CHANNELS, np.int32)
    return ConvLayer(
        "conv",
        (1, 4, 4, 5),
        codes,
        offset,
        geometry,
        np.asarray(thresholds, np.int32),
        np.asarray(direction, np.int32),
    )


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
def test_a_line_is_right_at_every_accumulator(bits, spread, shift):
    layer = layer_of(even(bits, spread, shift), DIRECTION)
    line = fit_line(layer)
    assert line is not None
    slope, intercept = line
    low, high = layer.accumulator_range
    for channel in range(OUT_CHANNELS):
        acc = np.arange(low[channel], high[channel] + 1)
        value = acc.astype(slope.dtype) * slope[channel] + intercept[channel]
        code = np.clip(value.astype(np.int32), 0, 2**bits - 1)  # Towards 0, as kernels do.
        assert np.array_equal(code, codes_of(layer, channel, acc))


def test_thresholds_on_no_line_have_none():
    limits = even(3, 60, 0)
    limits[3:, 2] += 40
    assert fit_line(layer_of(limits, DIRECTION)) is None
    assert fit_line(layer_of(even(3, 60, 0), DIRECTION)) is not None


@pytest.mark.parametrize("factor", [-2, 2, 4, -1, 1])
def test_thresholds_of_raw_sums(factor):
    rng = np.random.default_rng(1)
    limits = np.sort(rng.integers(-90, 90, (7, OUT_CHANNELS)), axis=0)
    layer = layer_of(limits, DIRECTION)
    constant = rng.integers(-30, 30, (2, 3, OUT_CHANNELS))
    low, high = -20, 40
    raw = Raw(constant, factor, np.zeros(OUT_CHANNELS, np.int64), low, high)
    found, flip = thresholds_of(layer, raw, factor, low, high)
    assert found.min() >= low and found.max() <= high + 1 and np.all(np.diff(found, axis=2) >= 0)
    for row, column, channel in np.ndindex(constant.shape):
        x = np.arange(low, high + 1)
        count = (x[:, None] >= found[row, column, :, channel]).sum(axis=1)
        count = count ^ 7 if flip[channel] else count
        expected = codes_of(layer, channel, constant[row, column, channel] + factor * x)
        assert np.array_equal(count, expected)


@pytest.mark.parametrize("bits", range(1, 9))
def test_planes_of_reached(bits):
    steps = 2**bits - 1
    for code in range(steps + 1):
        planes = planes_of_reached([step < code for step in range(steps)])
        assert [int(plane) for plane in planes] == [code >> b & 1 for b in range(bits)]


def test_constant_channels_have_a_line():
    limits = np.tile(np.array([[-(10**6)], [-(10**6)], [10**6]]), OUT_CHANNELS)
    slope, intercept = fit_line(layer_of(limits, DIRECTION))
    assert not slope.any() and np.array_equal(np.floor(intercept), np.full(OUT_CHANNELS, 2))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("spread, shift", [(60, 0), (200, 7), (3000, -900), (40, 5000)])
def test_codes_lie_little_above_the_line_below(bits, spread, shift):
    noise = np.random.default_rng(bits).integers(-1, 2, (2**bits - 1, OUT_CHANNELS))
    layer = layer_of(np.sort(even(bits, spread, shift) + noise, axis=0), DIRECTION)
    slope, intercept, rounds = line_below(layer)
    for channel, (low, high) in enumerate(zip(*layer.accumulator_range)):
        acc = np.arange(low, high + 1)
        line = np.float32(slope[channel]) * acc.astype(np.float32) + intercept[channel]
        start = np.clip(np.floor(line), 0, 2**bits - 2**rounds)
        above = codes_of(layer, channel, acc) - start
        assert above.min() >= 0 and above.max() <= 2**rounds - 1


def test_one_comparison_is_left_where_thresholds_lie_near_a_line():
    limits = even(4, 300, 0)
    limits[::2] += 3  # No line gives these.
    layer = layer_of(limits, DIRECTION)
    assert fit_line(layer) is None
    assert line_below(layer)[2] == 1
