"""Bits of counts of thresholds."""

import numpy as np
import pytest

from tvm_bitenc.te.threshold import codes_reached, planes_of_reached


@pytest.mark.parametrize("bits", range(1, 9))
def test_planes_of_reached(bits):
    steps = 2**bits - 1
    for code in range(steps + 1):
        planes = planes_of_reached([step < code for step in range(steps)], range(1, steps + 1))
        assert [int(plane) for plane in planes] == [code >> b & 1 for b in range(bits)]


@pytest.mark.parametrize("planes", range(1, 9))
def test_a_thermometer_is_one_comparison_a_plane(planes):
    """Its thresholds repeat: once, twice, four times, ..."""
    thresholds = np.repeat(np.arange(planes), 2 ** np.arange(planes))[:, None] * np.ones((1, 3))
    codes = codes_reached(thresholds)
    assert codes.tolist() == [2**plane - 1 for plane in range(1, planes + 1)]
    assert thresholds[codes - 1, 0].tolist() == list(range(planes))
    reached = [f"x >= t{i}" for i in range(planes)]
    assert planes_of_reached(reached, codes) == reached


def test_codes_that_are_left_out():
    """Levels 0, 3, 4, 6 in binary planes: a bit changes wherever it does between two codes."""
    codes = codes_reached(np.array([1, 1, 1, 5, 9, 9, np.nan]))
    assert codes.tolist() == [3, 4, 6, 7]
    for count, code in enumerate([0, 3, 4, 6, 7]):
        planes = planes_of_reached([step < count for step in range(4)], codes)
        assert [int(plane) for plane in planes] == [code >> b & 1 for b in range(3)]
