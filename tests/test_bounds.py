"""Bounds of accumulators, beside sums that reach them."""

import numpy as np
import pytest

from tvm_bitenc.bounds import accumulator_bound, check_accumulator
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.reference import conv2d, dense


def test_accumulator_bound_holds_and_is_checked():
    act, weight = Encoding.unsigned(8), Encoding.signed(8)
    codes = np.full((2, 1, 1, 1000), 0, np.uint8)
    worst = abs(int(conv2d(np.full((1, 1, 1, 1000), 255, np.uint8), act, codes, weight).min()))
    assert worst <= accumulator_bound(codes, weight, act)
    wide = np.zeros((1, 33000), np.uint8)
    with pytest.raises(UnsupportedError, match="int32"):
        dense(np.zeros((1, 33000), np.uint8), act, wide, weight)
    check_accumulator(2**31 - 1, "here")
    with pytest.raises(UnsupportedError, match="here"):
        check_accumulator(2**31, "here")
