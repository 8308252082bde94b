"""Layers of other shapes become 2-d convolutions and matrix products that compute the same."""

import numpy as np
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_bitenc import op as bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.op import quantize
from tvm_bitenc.transform import no_lowering
from tvm_bitenc.transform.as_conv2d import AsConv2d

op, rng = relax.op, np.random.default_rng(0)
ACT, WEIGHT = Encoding.symmetric(3, 2.0), Encoding.symmetric(2, 2.0)


def operands(builder, x, weight, encoding=WEIGHT, axis=-1):
    values = relax.const(np.asarray(weight, np.float32))
    return builder.emit(quantize(x, ACT)), builder.emit(quantize(values, encoding, axis, "layer"))


def random_values(encoding, *shape):
    return encoding.dequantize(rng.integers(0, 2**encoding.bits, shape, dtype=np.uint8))


def test_golden_conv1d(assert_same_ir):
    weight = relax.const(random_values(WEIGHT, 4, 3, 5))

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2, 6, 20), "float32")):
            with R.dataflow():
                a = bitenc.quantize(x, ACT)
                w = bitenc.quantize(weight, WEIGHT, layer="layer")
                y = R.nn.conv1d(a, w, strides=2, padding=(2, 1), dilation=3, groups=2)
                R.output(y)
            return y

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((2, 6, 20), "float32")):
            with R.dataflow():
                a = bitenc.quantize(x, ACT)
                w = bitenc.quantize(weight, WEIGHT, layer="layer")
                image = R.expand_dims(a, 2)
                kernel = R.expand_dims(w, 2)
                sums = R.nn.conv2d(
                    image,
                    kernel,
                    strides=(1, 2),
                    padding=(0, 2, 0, 1),
                    dilation=(1, 3),
                    groups=2,
                )
                y = R.squeeze(sums, 2)
                R.output(y)
            return y

    assert_same_ir(AsConv2d()(Before), After)


def test_golden_batched_dense_layer(assert_same_ir):
    weight = relax.const(random_values(WEIGHT, 6, 7))

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2, 5, 6), "float32")):
            with R.dataflow():
                a = bitenc.quantize(x, ACT)
                w = bitenc.quantize(weight, WEIGHT, layer="layer")
                y = R.matmul(a, w)
                R.output(y)
            return y

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((2, 5, 6), "float32")):
            with R.dataflow():
                a = bitenc.quantize(x, ACT)
                w = bitenc.quantize(weight, WEIGHT, layer="layer")
                y = R.reshape(R.matmul(R.reshape(a, (10, 6)), w), (2, 5, 7))
                R.output(y)
            return y

    assert_same_ir(AsConv2d()(Before), After)


def test_a_matrix_that_is_repeated_along_the_batch_is_one(module_of, ops_of, outputs_of, same):
    """Torch spells a linear layer of tokens so, where they aren't neighbours in memory."""
    weight = random_values(WEIGHT, 6, 7)

    def body(builder, x):
        a, w = operands(builder, x, weight)
        return builder.emit(op.matmul(a, builder.emit(op.broadcast_to(w, (2, 6, 7)))))

    mod = module_of([(2, 5, 6)], body)
    x = random_values(ACT, 2, 5, 6)
    (y,) = outputs_of(mod, [x])
    assert "bitenc.branch_matmul" not in ops_of(AsConv2d()(mod)) and same(y, x @ weight)


def test_what_is_not_quantized_stays(module_of, assert_same_ir):
    weight = relax.const(random_values(WEIGHT, 4, 2, 3, 3))
    mod = module_of([(1, 4, 4, 4)], lambda b, x: b.emit(op.nn.conv2d_transpose(x, weight)))
    assert_same_ir(AsConv2d()(mod), mod)


def test_splits_are_slices(module_of, ops_of, outputs_of, same):
    def body(builder, x):
        parts = builder.emit(op.split(x, [2, 3], 1))
        return [builder.emit(relax.TupleGetItem(parts, i)) for i in (0, 2)]

    mod = module_of([(1, 7, 3)], body)
    assert ops_of(AsConv2d()(mod)) == ["relax.strided_slice"] * 2
    x = rng.normal(size=(1, 7, 3)).astype(np.float32)
    a, b = outputs_of(mod, [x])
    assert same(a, x[:, :2]) and same(b, x[:, 3:])
    assert all(map(same, outputs_of(mod, [x], pipeline=no_lowering), (a, b)))
