"""Float arithmetic joins the convolution that it alone reads, step by step."""

import numpy as np
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_bitenc import op as bitenc
from tvm_bitenc.transform.fuse_float import FuseFloat

rng = np.random.default_rng(0)
W, OFFSET = (
    relax.const(rng.integers(0, 4, (3, 5, 3, 3)), "uint8"),
    relax.const(np.zeros(3), "int32"),
)
CONV = dict(act_coefficients=[1, 2], weight_coefficients=[1, 2], act_offset=0)
CONV |= dict(layer="conv", strategy="")
ALPHA, BETA = (np.float32([2, -1, 0.5]), np.float32([1, 0, 3]))
IMAGE_ALPHA, IMAGE_BETA = (relax.const(v.reshape(1, 1, 1, 3)) for v in (ALPHA, BETA))
PLAIN = dict(CONV, steps=[])


def test_golden(assert_same_ir):
    halves = relax.const(np.float32([0.5] * 3))
    alpha, beta = relax.const(ALPHA), relax.const(BETA)
    fused = dict(CONV, steps=["astype", "multiply", "multiply_add", "residual"])

    @I.ir_module
    class Before:
        @R.function
        def main(
            planes: R.Tensor((1, 4, 4, 2, 1), "uint64"), shortcut: R.Tensor((1, 2, 2, 3), "float32")
        ):
            with R.dataflow():
                acc = T.Call("bitenc.packed_conv2d", [planes, W, OFFSET], attrs=PLAIN)
                y = R.multiply(R.astype(acc, "float32"), R.const(0.5, "float32"))
                y1 = R.add(bitenc.multiply_add(y, IMAGE_ALPHA, IMAGE_BETA), shortcut)
                R.output(y1)
            return y1

    @I.ir_module
    class After:
        @R.function
        def main(
            planes: R.Tensor((1, 4, 4, 2, 1), "uint64"), shortcut: R.Tensor((1, 2, 2, 3), "float32")
        ):
            with R.dataflow():
                y1 = T.Call(
                    "bitenc.packed_conv2d",
                    [planes, shortcut, W, OFFSET, halves, alpha, beta],
                    attrs=fused,
                )
                R.output(y1)
            return y1

    assert_same_ir(FuseFloat()(Before), After)


def test_floats_that_others_read_are_where_it_ends(assert_same_ir):
    to_float = dict(CONV, steps=["astype"])

    @I.ir_module
    class Before:
        @R.function
        def main(planes: R.Tensor((1, 4, 4, 2, 1), "uint64")):
            with R.dataflow():
                acc = T.Call("bitenc.packed_conv2d", [planes, W, OFFSET], attrs=PLAIN)
                y = R.astype(acc, "float32")
                y1 = R.nn.relu(y)
                R.output(y, y1)
            return y, y1

    @I.ir_module
    class After:
        @R.function
        def main(planes: R.Tensor((1, 4, 4, 2, 1), "uint64")):
            with R.dataflow():
                y = T.Call("bitenc.packed_conv2d", [planes, W, OFFSET], attrs=to_float)
                y1 = R.nn.relu(y)
                R.output(y, y1)
            return y, y1

    assert_same_ir(FuseFloat()(Before), After)


def test_one_residual_is_all_that_joins(assert_same_ir):
    joined = dict(CONV, steps=["astype", "residual"])

    @I.ir_module
    class Before:
        @R.function
        def main(
            planes: R.Tensor((1, 4, 4, 2, 1), "uint64"),
            a: R.Tensor((1, 2, 2, 3), "float32"),
            b: R.Tensor((1, 2, 2, 3), "float32"),
        ):
            with R.dataflow():
                acc = T.Call("bitenc.packed_conv2d", [planes, W, OFFSET], attrs=PLAIN)
                y = R.add(a, R.add(R.astype(acc, "float32"), b))
                R.output(y)
            return y

    @I.ir_module
    class After:
        @R.function
        def main(
            planes: R.Tensor((1, 4, 4, 2, 1), "uint64"),
            a: R.Tensor((1, 2, 2, 3), "float32"),
            b: R.Tensor((1, 2, 2, 3), "float32"),
        ):
            with R.dataflow():
                acc = T.Call("bitenc.packed_conv2d", [planes, b, W, OFFSET], attrs=joined)
                y = R.add(a, acc)
                R.output(y)
            return y

    assert_same_ir(FuseFloat()(Before), After)
