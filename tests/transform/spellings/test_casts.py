"""Whole numbers cast to an integer type and back are what they were, where it holds them all."""

import pytest
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_bitenc.transform.canonicalize import Canonicalize


def test_golden(assert_same_ir):
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((3,), "float32")):
            with R.dataflow():
                codes = R.clip(R.round(x), -8, 7)
                lv = R.astype(codes, "int8")
                lv1 = R.astype(lv, "float32")
                R.output(lv1)
            return lv1

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((3,), "float32")):
            with R.dataflow():
                codes = R.clip(R.round(x), -8, 7)
                R.output(codes)
            return codes

    assert_same_ir(Canonicalize()(Before), After)


@pytest.mark.parametrize("low, high, dtype", [(-8, 7, "uint8"), (-129, 0, "int8"), (0, 3, "bool")])
def test_casts_that_lose_something_stay(low, high, dtype, assert_same_ir):
    @I.ir_module
    class Lossy:
        @R.function
        def main(x: R.Tensor((3,), "float32")):
            with R.dataflow():
                codes = R.clip(R.round(x), low, high)
                lv = R.astype(codes, dtype)
                lv1 = R.astype(lv, "float32")
                R.output(lv1)
            return lv1

    assert_same_ir(Canonicalize()(Lossy), Lossy)


def test_fractions_are_no_integers(assert_same_ir):
    @I.ir_module
    class Truncated:
        @R.function
        def main(x: R.Tensor((3,), "float32")):
            with R.dataflow():
                lv = R.astype(R.clip(x, -8, 7), "int8")
                lv1 = R.astype(lv, "float32")
                R.output(lv1)
            return lv1

    assert_same_ir(Canonicalize()(Truncated), Truncated)
