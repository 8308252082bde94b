"""A convolution of few channels reads codes, where the target can; any other reads planes."""

import numpy as np
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_bitenc import op as bitenc
from tvm_bitenc.target import Target, load_target
from tvm_bitenc.transform.direct_codes import DirectCodes
from tvm_bitenc.transform.layout import NHWC

TARGET = load_target("x86-64-v3")
PLAIN = Target("plain", TARGET.tvm_target, ("generic",))
W = relax.const(np.random.default_rng(0).integers(0, 4, (8, 3, 3, 3)), "uint8")
OFFSET = relax.const(np.zeros(8), "int32")
CONV = dict(act_coefficients=[1, 2], weight_coefficients=[1, 2], act_offset=0, layer="stem")
CONV |= dict(strides=[1, 1], padding=[1, 1, 1, 1], dilation=[1, 1], groups=1, steps=[])
INT8 = dict(CONV, strategy="int8", tile=[], origin="default rule")
XNOR = dict(INT8, strategy="xnor")


@I.ir_module
class Before:
    @R.function
    def main(codes: R.Tensor((1, 3, 6, 6), "uint8")):
        with R.dataflow():
            planes = bitenc.pack(R.permute_dims(codes, NHWC), 2)
            out = T.Call("bitenc.packed_conv2d", [planes, W, OFFSET], attrs=INT8)
            R.output(out)
        return out


@I.ir_module
class After:
    @R.function
    def main(codes: R.Tensor((1, 3, 6, 6), "uint8")):
        with R.dataflow():
            out = T.Call("bitenc.packed_conv2d", [codes, W, OFFSET], attrs=INT8)
            R.output(out)
        return out


def test_golden(assert_same_ir):
    assert_same_ir(DirectCodes(TARGET)(Before), After)


def test_a_target_whose_kernels_take_planes_keeps_them(assert_same_ir):
    assert_same_ir(DirectCodes(PLAIN)(Before), Before)


def test_other_strategies_count_on_planes(assert_same_ir):
    @I.ir_module
    class Xnor:
        @R.function
        def main(codes: R.Tensor((1, 3, 6, 6), "uint8")):
            with R.dataflow():
                planes = bitenc.pack(R.permute_dims(codes, NHWC), 2)
                out = T.Call("bitenc.packed_conv2d", [planes, W, OFFSET], attrs=XNOR)
                R.output(out)
            return out

    assert_same_ir(DirectCodes(TARGET)(Xnor), Xnor)


def test_both_compute_the_same(outputs_of, only, same):
    codes = np.random.default_rng(1).integers(0, 4, (1, 3, 6, 6), dtype=np.uint8)
    before, after = (outputs_of(mod, [codes], pipeline=only()) for mod in (Before, After))
    assert same(*before, *after)
