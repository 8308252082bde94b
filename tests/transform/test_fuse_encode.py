"""Thresholds on floats are where codes really change."""

import numpy as np
import pytest
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_bitenc import op as bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.transform.fuse_encode import FuseEncode, float_thresholds

F32 = np.float32
ACT = Encoding.unsigned(2, 1.0)


def test_golden(assert_same_ir):
    """Codes of 4 x change behind 0.5, at 1.5 and behind 2.5: halves are rounded to even."""
    changes = F32([0.125, 0.375, 0.625])
    thresholds = relax.const(np.where([True, False, True], np.nextafter(changes, F32(1)), changes))

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 2, 2, 3), "float32")):
            with R.dataflow():
                y = R.multiply(R.clip(x, -1, 1), R.const(4.0, "float32"))
                planes = bitenc.pack(bitenc.encode(y, ACT), 2)
                R.output(planes)
            return planes

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((1, 2, 2, 3), "float32")):
            with R.dataflow():
                planes = T.Call("bitenc.packed_encode", [x, thresholds], attrs={})
                R.output(planes)
            return planes

    assert_same_ir(FuseEncode()(Before), After)


def test_what_is_read_as_a_number_is_computed_once(assert_same_ir):
    """A residual reads it as well: thresholds are on it, not on what lies in front of it."""
    thresholds = relax.const(float_thresholds(ACT.quantize, 3))

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 2, 2, 3), "float32"), other: R.Tensor((1, 2, 2, 3), "float32")):
            with R.dataflow():
                y = R.nn.relu(x)
                planes = bitenc.pack(bitenc.encode(y, ACT), 2)
                total = R.add(y, other)
                R.output(planes, total)
            return (planes, total)

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((1, 2, 2, 3), "float32"), other: R.Tensor((1, 2, 2, 3), "float32")):
            with R.dataflow():
                y = R.nn.relu(x)
                planes = T.Call("bitenc.packed_encode", [y, thresholds], attrs={})
                total = R.add(y, other)
                R.output(planes, total)
            return (planes, total)

    assert_same_ir(FuseEncode()(Before), After)


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
