"""Bits of counts of thresholds."""

import pytest

from tvm_bitenc.te.threshold import planes_of_reached


@pytest.mark.parametrize("bits", range(1, 9))
def test_planes_of_reached(bits):
    steps = 2**bits - 1
    for code in range(steps + 1):
        planes = planes_of_reached([step < code for step in range(steps)])
        assert [int(plane) for plane in planes] == [code >> b & 1 for b in range(bits)]
