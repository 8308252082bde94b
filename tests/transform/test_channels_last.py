"""Permutations to NCHW move behind float arithmetic, and meet the ones back."""

import numpy as np
import pytest
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_bitenc import op as bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.transform import no_lowering
from tvm_bitenc.transform.channels_last import ChannelsLast
from tvm_bitenc.transform.layout import NCHW, NHWC

op, rng = relax.op, np.random.default_rng(0)
ACT = Encoding.unsigned(2, 0.5)
SCALES = np.float32([0.5, 3, -1])
SCALE = relax.const(SCALES.reshape(3, 1, 1))
SCALE_LAST = relax.const(SCALES.reshape(1, 1, 1, 3))


def test_golden(assert_same_ir):
    @I.ir_module
    class Before:
        @R.function
        def main(acc: R.Tensor((1, 2, 4, 3), "int32")):
            with R.dataflow():
                y = R.permute_dims(acc, NCHW)
                y1 = R.multiply(R.astype(y, "float32"), SCALE)
                codes = R.permute_dims(bitenc.encode(y1, ACT), NHWC)
                planes = bitenc.pack(codes, 2)
                R.output(planes)
            return planes

    @I.ir_module
    class After:
        @R.function
        def main(acc: R.Tensor((1, 2, 4, 3), "int32")):
            with R.dataflow():
                y1 = R.multiply(R.astype(acc, "float32"), SCALE_LAST)
                planes = bitenc.pack(bitenc.encode(y1, ACT), 2)
                R.output(planes)
            return planes

    assert_same_ir(ChannelsLast()(Before), After)


# On an image (1, 3, 4, 5) that was channels last.
MOVED = {
    "relu": lambda x: op.nn.relu(x),
    "subtract from a number": lambda x: op.subtract(relax.const(np.float32(2)), x),
    "slopes by channel": lambda x: op.nn.prelu(x, relax.const(SCALES), 1),
    "fused product and sum": lambda x: bitenc.multiply_add(
        x, relax.const(SCALES.reshape(1, 3, 1, 1)), relax.const(np.ones((1, 1, 1, 1), "f4"))
    ),
    "maxima": lambda x: op.nn.max_pool2d(x, (2, 2), (2, 1), (0, 1)),
    "means": lambda x: op.mean(x, [2, 3], True),
}
KEPT = {
    "means over rows": lambda x: op.mean(x, [2], True),
    "numbers by column": lambda x: op.multiply(x, relax.const(np.ones(5, "f4"))),
    "a scale per channel": lambda x: bitenc.quantize(x, Encoding(2, [1.0, 2, 4], 0.0), axis=1),
    "slopes by row": lambda x: op.nn.prelu(x, relax.const(np.ones(4, "f4")), 2),
}


def image_module(function, module_of):
    def body(builder, x):
        y = builder.emit(function(builder.emit(op.permute_dims(x, NCHW))))
        return builder.emit(op.permute_dims(y, NHWC)) if len(y.ty.shape) == 4 else y

    return module_of([(1, 4, 5, 3)], body)


@pytest.mark.parametrize("name", MOVED)
def test_moved(name, module_of, ops_of, outputs_of, same):
    mod = image_module(MOVED[name], module_of)
    moved = ChannelsLast()(mod)
    assert "relax.permute_dims" not in ops_of(moved)
    x = rng.normal(size=(1, 4, 5, 3)).astype(np.float32)
    before, after = (outputs_of(m, [x], pipeline=no_lowering)[0] for m in (mod, moved))
    assert same(before, after)


@pytest.mark.parametrize("name", KEPT)
def test_kept(name, module_of, assert_same_ir):
    mod = image_module(KEPT[name], module_of)
    assert_same_ir(ChannelsLast()(mod), mod)
