"""Quantizers in one spelling; what layers read lies on a grid; batch-norm is arithmetic."""

import numpy as np
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_bitenc import op as bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.levels import encoding_of_levels
from tvm_bitenc.transform.canonicalize import Canonicalize

f32 = np.float32


def test_golden(assert_same_ir):
    scale = relax.const(f32(0.3))
    encoding = Encoding(2, 0.3, 0.0)

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2, 3), "float32")):
            with R.dataflow():
                lv = R.divide(x, scale)
                lv1 = R.round(lv)
                lv2 = R.clip(lv1, 0, 3)
                lv3 = R.multiply(lv2, scale)
                R.output(lv3)
            return lv3

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((2, 3), "float32")):
            with R.dataflow():
                lv3 = bitenc.quantize(x, encoding)
                R.output(lv3)
            return lv3

    assert_same_ir(Canonicalize()(Before), After)


def test_golden_what_a_layer_reads_is_put_on_its_grid(assert_same_ir):
    """DoReFa: levels k / 15, which no scale hits."""
    weight, signed = relax.const(np.ones((2, 1, 1, 1), f32)), Encoding.signed(2, 1.0)
    grid = Encoding(4, f32(1 / 15), 0.0)

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 1, 4, 4), "float32")):
            with R.dataflow():
                w = bitenc.quantize(weight, signed)
                lv = R.clip(x, 0, 1)
                lv1 = R.multiply(lv, R.const(15.0, "float32"))
                lv2 = R.round(lv1)
                lv3 = R.divide(lv2, R.const(15.0, "float32"))
                lv4 = R.nn.conv2d(lv3, w)
                R.output(lv4)
            return lv4

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((1, 1, 4, 4), "float32")):
            with R.dataflow():
                w = bitenc.quantize(weight, signed)
                lv = R.clip(x, 0, 1)
                lv1 = R.multiply(lv, R.const(15.0, "float32"))
                lv2 = R.round(lv1)
                lv3 = R.divide(lv2, R.const(15.0, "float32"))
                lv4 = bitenc.quantize(lv3, grid)
                lv5 = R.nn.conv2d(lv4, w)
                R.output(lv5)
            return lv5

    assert_same_ir(Canonicalize()(Before), After)


def test_golden_a_sum_of_steps_has_levels_and_bounds(assert_same_ir):
    weight, signed = relax.const(np.ones((2, 1, 1, 1), f32)), Encoding.signed(2, 1.0)
    # The least numbers above: x > -0.5 isn't x >= -0.5.
    bounds = np.nextafter(f32([-0.5, 0.25]), f32(9)).tolist()
    levels = encoding_of_levels([0, 1, 3], bounds, 0.75, 0.0)
    assert levels.codes == (0, 1, 3) and levels.coefficients == (1, 2)

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 1, 4, 4), "float32")):
            with R.dataflow():
                w = bitenc.quantize(weight, signed)
                lv = R.greater(x, R.const(-0.5, "float32"))
                lv1 = R.multiply(R.astype(lv, "float32"), R.const(0.75, "float32"))
                lv2 = R.greater(x, R.const(0.25, "float32"))
                lv3 = R.multiply(R.astype(lv2, "float32"), R.const(1.5, "float32"))
                lv4 = R.nn.conv2d(R.add(lv1, lv3), w)
                R.output(lv4)
            return lv4

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((1, 1, 4, 4), "float32")):
            with R.dataflow():
                w = bitenc.quantize(weight, signed)
                lv = bitenc.quantize(x, levels)
                lv1 = R.nn.conv2d(lv, w)
                R.output(lv1)
            return lv1

    assert_same_ir(Canonicalize()(Before), After)


def test_golden_batch_norm_becomes_arithmetic(assert_same_ir):
    gamma, beta, mean, variance = (relax.const(np.full(3, v, f32)) for v in (2, 0.5, 1, 4))

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 3, 2, 2), "float32")):
            with R.dataflow():
                lv = R.nn.batch_norm(x, gamma, beta, mean, variance, axis=1, training=False)
                y = lv[0]
                R.output(y)
            return y

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((1, 3, 2, 2), "float32")):
            with R.dataflow():
                lv = R.subtract(x, R.expand_dims(mean, [0, 2, 3]))
                lv1 = R.add(R.expand_dims(variance, [0, 2, 3]), R.const(1e-5, "float32"))
                lv2 = R.divide(lv, R.sqrt(lv1))
                lv3 = R.multiply(lv2, R.expand_dims(gamma, [0, 2, 3]))
                y = R.add(lv3, R.expand_dims(beta, [0, 2, 3]))
                R.output(y)
            return y

    assert_same_ir(Canonicalize()(Before), After)


def test_golden_weights_are_named_after_their_layers(assert_same_ir):
    weight, act, signed = (
        relax.const(np.ones((3, 4), f32)),
        Encoding.unsigned(2),
        Encoding.signed(2),
    )

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2, 4), "float32")):
            with R.dataflow():
                a = bitenc.quantize(x, act)
                w = R.permute_dims(bitenc.quantize(weight, signed))
                head = R.matmul(a, w)
                R.output(head)
            return head

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((2, 4), "float32")):
            with R.dataflow():
                a = bitenc.quantize(x, act)
                w = R.permute_dims(bitenc.quantize(weight, signed, layer="head"))
                head = R.matmul(a, w)
                R.output(head)
            return head

    assert_same_ir(Canonicalize()(Before), After)


def test_golden_scales_per_output_channel(assert_same_ir):
    values = f32([0.5, 0.3]).reshape(2, 1, 1, 1)
    scale, act = relax.const(values), Encoding.unsigned(2)
    weight = relax.const(f32([[-1, 0.2], [0.1, 3]]).reshape(2, 2, 1, 1))
    grid = Encoding(3, [0.5, 0.3], [4.0, 4.0])

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 2, 3, 3), "float32")):
            with R.dataflow():
                w = R.multiply(R.clip(R.round(R.divide(weight, scale)), -4, 3), scale)
                a = bitenc.quantize(x, act)
                lv = R.nn.conv2d(a, w)
                R.output(lv)
            return lv

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((1, 2, 3, 3), "float32")):
            with R.dataflow():
                w = R.multiply(R.clip(R.round(R.divide(weight, scale)), -4, 3), scale)
                a = bitenc.quantize(x, act)
                w1 = bitenc.quantize(w, grid, 0)
                lv = R.nn.conv2d(a, w1)
                R.output(lv)
            return lv

    assert_same_ir(Canonicalize()(Before), After)


def test_golden_tensors_that_are_joined_get_quantizers_each(assert_same_ir):
    """Codes flow through the concatenation and the padding."""
    weight, signed = relax.const(np.ones((2, 2, 1, 1), f32)), Encoding.signed(2, 1.0)
    grid, n = Encoding(4, f32(1 / 15), 0.0), relax.const(f32(15))
    around = [0, 0, 0, 0, 1, 1, 1, 1]

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 1, 4, 4), "float32"), y: R.Tensor((1, 1, 4, 4), "float32")):
            with R.dataflow():
                w = bitenc.quantize(weight, signed)
                x1 = R.divide(R.round(R.multiply(R.clip(x, 0, 1), n)), n)
                y1 = R.divide(R.round(R.multiply(R.clip(y, 0, 1), n)), n)
                lv = R.nn.pad(R.concat((x1, y1), axis=1), around)
                lv1 = R.nn.conv2d(lv, w)
                R.output(lv1)
            return lv1

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((1, 1, 4, 4), "float32"), y: R.Tensor((1, 1, 4, 4), "float32")):
            with R.dataflow():
                w = bitenc.quantize(weight, signed)
                x1 = R.divide(R.round(R.multiply(R.clip(x, 0, 1), n)), n)
                y1 = R.divide(R.round(R.multiply(R.clip(y, 0, 1), n)), n)
                qx = bitenc.quantize(x1, grid)
                qy = bitenc.quantize(y1, grid)
                lv = R.nn.pad(R.concat((qx, qy), axis=1), around)
                lv1 = R.nn.conv2d(lv, w)
                R.output(lv1)
            return lv1

    assert_same_ir(Canonicalize()(Before), After)


def test_other_readers_keep_their_numbers(assert_same_ir):
    """Only a layer may see a level moved by its last bit."""
    n = relax.const(f32(15))

    @I.ir_module
    class Read:
        @R.function
        def main(x: R.Tensor((4, 4), "float32")):
            with R.dataflow():
                levels = R.divide(R.round(R.multiply(R.clip(x, 0, 1), n)), n)
                y = R.sigmoid(levels)
                R.output(y)
            return y

    assert_same_ir(Canonicalize()(Read), Read)
