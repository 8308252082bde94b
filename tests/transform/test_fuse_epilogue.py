"""A threshold unit joins the convolution that it alone reads."""

import numpy as np
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_bitenc.transform.fuse_epilogue import FuseEpilogue

rng = np.random.default_rng(0)
W = relax.const(rng.integers(0, 4, (3, 5, 3, 3)), "uint8")
OFFSET = relax.const(np.zeros(3), "int32")
LIMITS = relax.const(np.sort(rng.integers(-30, 30, (3, 3)), axis=0), "int32")
SIGNS = relax.const(np.array([1, -1, 1]), "int32")
OTHER_LIMITS = relax.const(np.array([[0, 1, 2]]), "int32")
OTHER_SIGNS = relax.const(np.ones(3), "int32")
CONV = dict(act_coefficients=[1, 2], weight_coefficients=[1, 2], act_offset=0, steps=[])


@I.ir_module
class Before:
    @R.function
    def main(planes: R.Tensor((1, 4, 4, 2, 1), "uint64")):
        with R.dataflow():
            acc = T.Call("bitenc.packed_conv2d", [planes, W, OFFSET], attrs=CONV)
            out = T.Call("bitenc.packed_threshold", [acc, LIMITS, SIGNS], attrs={})
            R.output(out)
        return out


@I.ir_module
class After:
    @R.function
    def main(planes: R.Tensor((1, 4, 4, 2, 1), "uint64")):
        with R.dataflow():
            out = T.Call("bitenc.packed_conv2d", [planes, W, OFFSET, LIMITS, SIGNS], attrs=CONV)
            R.output(out)
        return out


def test_golden():
    tvm.ir.assert_structural_equal(FuseEpilogue()(Before), After)


def test_accumulators_that_others_read_stay():
    @I.ir_module
    class Shared:
        @R.function
        def main(planes: R.Tensor((1, 4, 4, 2, 1), "uint64")):
            with R.dataflow():
                acc = T.Call("bitenc.packed_conv2d", [planes, W, OFFSET], attrs=CONV)
                out = T.Call("bitenc.packed_threshold", [acc, LIMITS, SIGNS], attrs={})
                R.output(acc, out)
            return acc, out

    tvm.ir.assert_structural_equal(FuseEpilogue()(Shared), Shared)


def test_two_thresholds_of_one_accumulator_stay():
    @I.ir_module
    class Twice:
        @R.function
        def main(planes: R.Tensor((1, 4, 4, 2, 1), "uint64")):
            with R.dataflow():
                acc = T.Call("bitenc.packed_conv2d", [planes, W, OFFSET], attrs=CONV)
                out = T.Call("bitenc.packed_threshold", [acc, LIMITS, SIGNS], attrs={})
                other = T.Call(
                    "bitenc.packed_threshold", [acc, OTHER_LIMITS, OTHER_SIGNS], attrs={}
                )
                R.output(out, other)
            return out, other

    tvm.ir.assert_structural_equal(FuseEpilogue()(Twice), Twice)
