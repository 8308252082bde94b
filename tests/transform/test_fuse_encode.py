"""Thresholds on floats are where codes really change."""

import numpy as np
import pytest

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.transform.fuse_encode import float_thresholds

F32 = np.float32


@pytest.mark.parametrize("kind", ["symmetric", "unsigned", "signed"])
@pytest.mark.parametrize("bits", range(1, 5))
def test_codes_change_at_every_threshold_and_just_below(bits, kind, kinds):
    encoding = kinds[kind](bits, 0.37)
    found = float_thresholds(encoding.quantize, 2**bits - 1)
    assert found.dtype == F32
    below = np.nextafter(found, F32(-np.inf))
    near = np.concatenate([found, below, F32([-0.0, 0.0, -np.inf, np.inf, 1e-45, -1e-45])])
    count = (near[:, None] >= found).sum(axis=1)
    assert np.array_equal(count, encoding.quantize(near))
    assert np.array_equal(encoding.quantize(found), np.arange(1, 2**bits))
    assert np.array_equal(encoding.quantize(below), np.arange(2**bits - 1))


def test_codes_that_no_number_gets():
    found = float_thresholds(lambda x: (x >= 1).astype(np.uint8), 3)
    assert found[0] == 1 and np.isnan(found[1:]).all()


def test_both_zeros_get_one_code():
    encoding = Encoding.symmetric(1)
    codes = encoding.quantize(F32([-0.0, 0.0]))
    assert codes[0] == codes[1]
    (threshold,) = float_thresholds(encoding.quantize, 1)
    assert threshold == 0 and F32(-0.0) >= threshold
