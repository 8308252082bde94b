"""TE definitions, run as they stand."""

import numpy as np
import pytest

from tvm_bitenc import encoding
from tvm_bitenc.te import pack as te_pack
from tvm_bitenc.te.pool import max_pool2d
from tvm_bitenc.te.threshold import threshold

rng = np.random.default_rng(0)


@pytest.mark.parametrize("channels, groups", [(3, 1), (64, 1), (65, 1), (130, 2), (192, 3)])
def test_pack_and_unpack(channels, groups, run_te, same):
    codes = rng.integers(0, 16, (1, 2, 3, channels), dtype=np.uint8)
    words = run_te(lambda x: te_pack.pack(x, 4, groups), codes)
    assert same(words, encoding.pack(codes, 4, groups))
    assert same(run_te(lambda x: te_pack.unpack(x, channels, groups), words), codes)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("bits", range(1, 9))
def test_max_pool_compares_codes_not_planes(bits, run_te, same):
    codes = rng.integers(0, 2**bits, (1, 5, 6, 66), dtype=np.uint8)
    planes = encoding.pack(codes, bits)
    pooled = run_te(lambda x: max_pool2d(x, (2, 3), (2, 3), (0, 0, 0, 0), (1, 1), (2, 2)), planes)
    expected = codes[:, :4].reshape(1, 2, 2, 2, 3, 66).max(axis=(2, 4))
    assert same(encoding.unpack(pooled, 66), expected)


def test_threshold_at_the_ends_of_int32(run_te):
    acc = np.array([[[[-(2**31) + 2, 2**31 - 2]]]], np.int32)
    always, never = np.full(2, -(2**31)), np.full(2, 2**31 - 1)
    thresholds = np.stack([always, never]).astype(np.int32)
    for sign in (1, -1):
        direction = np.full(2, sign, np.int32)
        codes = run_te(lambda *t: threshold(*t, 3), acc, thresholds, direction)
        assert codes.tolist() == [[[[1, 1]]]]
