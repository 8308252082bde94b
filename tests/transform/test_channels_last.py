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


# On rows (2, 3, 4) that were images (6, 1, 1, 4), and another tensor (2, 3, 4).
FOUR = np.float32([0.5, 3, -1, 2])
ROWS_MOVED = {
    "relu": lambda x, _: op.nn.relu(x),
    "a number for each channel": lambda x, _: op.multiply(x, relax.const(FOUR)),
    "the same of more axes": lambda x, _: op.subtract(relax.const(FOUR.reshape(1, 1, 4)), x),
    "one number": lambda x, _: op.add(x, relax.const(np.float32(2))),
    "fused product and sum": lambda x, _: bitenc.multiply_add(
        x, relax.const(FOUR.reshape(1, 1, 4)), relax.const(np.ones((1, 1, 1), "f4"))
    ),
    "a residual": lambda x, other: op.add(other, x),
    "itself": lambda x, _: op.multiply(x, x),
    "codes": lambda x, _: op.astype(bitenc.encode(x, ACT), "float32"),
}
ROWS_KEPT = {
    "numbers by row": lambda x, _: op.add(x, relax.const(np.float32([[[1], [2], [3]]]))),
    "broadcasting": lambda x, _: op.add(x, relax.const(np.ones((5, 1, 1, 1), "f4"))),
    "a product of tensors": lambda x, other: op.multiply(x, other),
    "softmax": lambda x, _: op.nn.softmax(x),
}


def row_module(function, module_of):
    def body(builder, x, other):
        rows = builder.emit(op.reshape(builder.emit(op.permute_dims(x, NCHW)), (6, 4)))
        return function(builder.emit(op.reshape(rows, (2, 3, 4))), other)

    return module_of([(6, 1, 1, 4), (2, 3, 4)], body)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("name", [*ROWS_MOVED, *ROWS_KEPT])
def test_rows_of_dense_layers(name, module_of, outputs_of, same, ops_of):
    mod = row_module({**ROWS_MOVED, **ROWS_KEPT}[name], module_of)
    moved = ChannelsLast()(mod)
    # What was moved acts on images; reshaping is left for last.
    assert ("relax.permute_dims" in ops_of(moved)) == (name in ROWS_KEPT)
    x, other = (rng.normal(size=s).astype(np.float32) for s in ((6, 1, 1, 4), (2, 3, 4)))
    before, after = (outputs_of(m, [x, other], pipeline=no_lowering)[0] for m in (mod, moved))
    assert same(before, after)


def test_rows_packed_again_are_images(module_of, ops_of):
    def body(builder, x):
        rows = builder.emit(op.reshape(builder.emit(op.permute_dims(x, NCHW)), (2, 3, 4)))
        codes = builder.emit(bitenc.encode(rows, ACT))
        images = builder.emit(op.reshape(codes, (6, 4, 1, 1)))
        return bitenc.pack(builder.emit(op.permute_dims(images, NHWC)), 2)

    moved = ChannelsLast()(module_of([(6, 1, 1, 4)], body))
    assert ops_of(moved) == ["bitenc.encode", "bitenc.pack"]


def test_rows_of_other_lengths_stay(module_of, assert_same_ir):
    def body(builder, x):
        rows = builder.emit(op.reshape(builder.emit(op.permute_dims(x, NCHW)), (3, 8)))
        return op.multiply(rows, relax.const(np.arange(8, dtype="f4")))

    mod = module_of([(6, 1, 1, 4)], body)
    assert_same_ir(ChannelsLast()(mod), mod)


def test_one_number_without_axes_stays(module_of, assert_same_ir):
    def body(builder, x):
        number = builder.emit(op.reshape(builder.emit(op.permute_dims(x, NCHW)), ()))
        return op.multiply(number, relax.const(np.float32(2)))

    mod = module_of([(1, 1, 1, 1)], body)
    assert_same_ir(ChannelsLast()(mod), mod)


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
