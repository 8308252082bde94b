"""Layers of two quantized tensors become branch ops; the rest says why it doesn't."""

import numpy as np
import pytest
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_bitenc import op as bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.levels import encoding_of_levels
from tvm_bitenc.op import quantize
from tvm_bitenc.op.matmul import branch_matmul_op, transposes_b
from tvm_bitenc.op.registration import is_call_to
from tvm_bitenc.transform import no_lowering
from tvm_bitenc.transform.analysis.float32 import op_name
from tvm_bitenc.transform.lower import Lower, float_layers
from tvm_bitenc.transform.visit import visit_calls

UNEVEN = encoding_of_levels([0, 3, 7, 12], [-1.0, 0.25, 2.0], 0.5, 3.0)
ACT, WEIGHT = Encoding.unsigned(2, 0.5), Encoding.symmetric(3, 0.25)
rng = np.random.default_rng(0)


def test_golden_conv2d(assert_same_ir):
    act, grid = Encoding.unsigned(2, 0.5), Encoding.symmetric(3, 0.25)
    weight_codes = rng.integers(0, 8, (4, 3, 3, 3), dtype=np.uint8)
    weight = relax.const(grid.dequantize(weight_codes))

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 6, 8, 9), "float32")):
            with R.dataflow():
                a = bitenc.quantize(x, act)
                w = bitenc.quantize(weight, grid, layer="conv")
                y = R.nn.conv2d(
                    a, w, strides=(2, 1), padding=(1, 0, 2, 1), dilation=(1, 2), groups=2
                )
                R.output(y)
            return y

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((1, 6, 8, 9), "float32")):
            with R.dataflow():
                codes = bitenc.encode(x, act)
                acc = bitenc.branch_conv2d(
                    codes,
                    act,
                    weight_codes,
                    grid,
                    strides=(2, 1),
                    padding=(1, 0, 2, 1),
                    dilation=(1, 2),
                    groups=2,
                    layer="conv",
                )
                y = R.multiply(R.astype(acc, "float32"), R.const(0.5 * 0.25 / 4, "float32"))
                R.output(y)
            return y

    assert_same_ir(Lower()(Before), After)


def test_golden_dense(assert_same_ir):
    """Torch's weights are transposed behind their quantizer, ONNX's may not be."""
    weight_codes = rng.integers(0, 8, (5, 8), dtype=np.uint8)
    weight = relax.const(WEIGHT.dequantize(weight_codes))
    transposed = relax.const(WEIGHT.dequantize(weight_codes).T.copy())

    @I.ir_module
    class Torch:
        @R.function
        def main(x: R.Tensor((2, 8), "float32")):
            with R.dataflow():
                a = bitenc.quantize(x, ACT)
                w = R.permute_dims(bitenc.quantize(weight, WEIGHT, layer="fc"))
                y = R.matmul(a, w)
                R.output(y)
            return y

    @I.ir_module
    class Onnx:
        @R.function
        def main(x: R.Tensor((2, 8), "float32")):
            with R.dataflow():
                a = bitenc.quantize(x, ACT)
                w = bitenc.quantize(transposed, WEIGHT, layer="fc")
                y = R.matmul(a, w)
                R.output(y)
            return y

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((2, 8), "float32")):
            with R.dataflow():
                codes = bitenc.encode(x, ACT)
                acc = bitenc.branch_dense(codes, ACT, weight_codes, WEIGHT, layer="fc")
                y = R.multiply(R.astype(acc, "float32"), R.const(0.5 * 0.25 / 4, "float32"))
                R.output(y)
            return y

    for mod in (Torch, Onnx):
        assert_same_ir(Lower()(mod), After)


def test_golden_product_of_activations(assert_same_ir):
    """Four axes are matrices, one after another."""
    grid = Encoding.symmetric(2, 2.0)

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2, 3, 4, 5), "float32"), x1: R.Tensor((2, 3, 5, 6), "float32")):
            with R.dataflow():
                a = bitenc.quantize(x, grid)
                b = bitenc.quantize(x1, grid, layer="scores")
                scores = R.matmul(a, b)
                R.output(scores)
            return scores

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((2, 3, 4, 5), "float32"), x1: R.Tensor((2, 3, 5, 6), "float32")):
            with R.dataflow():
                codes = bitenc.encode(x, grid)
                codes1 = bitenc.encode(x1, grid)
                a = R.reshape(codes, (6, 4, 5))
                b = R.reshape(codes1, (6, 5, 6))
                acc = bitenc.branch_matmul(a, grid, b, grid, layer="scores")
                scores = R.astype(R.reshape(acc, (2, 3, 4, 6)), "float32")
                R.output(scores)
            return scores

    assert_same_ir(Lower()(Before), After)


def test_scales_of_two_need_no_rescaling(random_layer, layers_module, ops_of):
    layer = random_layer(0, Encoding.signed(2, 2.0), Encoding.signed(2, 2.0))
    ops = ops_of(Lower()(layers_module([layer])))
    assert ops == ["bitenc.encode", "bitenc.branch_conv2d", "relax.astype"]


def test_two_layers_share_one_encoder(random_layer, module_of, ops_of):
    layer = random_layer(0, WEIGHT, ACT)

    def body(builder, x):
        return [layer.emit(builder, x), layer.emit(builder, x)]

    ops = ops_of(Lower()(module_of([layer.act_codes.shape], body)))
    assert ops.count("bitenc.encode") == 1


def test_shaping_between_quantizer_and_layer_acts_on_codes(
    random_layer, module_of, outputs_of, only, ops_of, same
):
    a, w = Encoding.symmetric(3, 2.0), Encoding.symmetric(2, 2.0)
    layer = random_layer(0, w, a, dense=True, channels=24)

    def body(builder, x):
        y = builder.emit(quantize(x, a))
        y = builder.emit(relax.op.nn.max_pool2d(y, (2, 2), (2, 2), (1, 1)))
        y = builder.emit(relax.op.permute_dims(y, (0, 2, 3, 1)))
        y = builder.emit(relax.op.reshape(y, (1, 24)))
        values = relax.const(w.dequantize(layer.weight_codes))
        weight = builder.emit(relax.op.permute_dims(builder.emit(quantize(values, w))))
        return builder.emit(relax.op.matmul(y, weight))

    mod = module_of([(1, 4, 4, 3)], body)
    ops = ops_of(Lower()(mod))
    assert ops[0] == "bitenc.encode" and "bitenc.branch_dense" in ops
    x = rng.normal(size=(1, 4, 4, 3)).astype(np.float32) * 8
    ((before,), (after,), (built,)) = (
        outputs_of(mod, [x], pipeline=p) for p in (no_lowering, only(Lower()), only(Lower()))
    )
    assert same(before, after) and same(before, built)


def test_per_channel_weights_of_a_dense_layer(module_of, outputs_of, only, same):
    weight = Encoding(2, [0.5, 2.0, 8.0], [0.0, 1.5, 2.0])
    codes = rng.integers(0, 4, (3, 20), dtype=np.uint8)
    values = weight.dequantize(codes).T.copy()
    act = Encoding.unsigned(3, 2.0)

    def body(builder, x):
        w = builder.emit(quantize(relax.const(values), weight, axis=1))
        return builder.emit(relax.op.matmul(builder.emit(quantize(x, act)), w))

    mod = module_of([(2, 20)], body)
    x = act.dequantize(rng.integers(0, 8, (2, 20), dtype=np.uint8))
    (y,) = outputs_of(mod, [x], pipeline=only(Lower()))
    assert same(y, x @ values)


def joined(builder, x, *encodings):
    return relax.op.concat([builder.emit(quantize(x, encoding)) for encoding in encodings], 2)


SURROUND = (0, 0, 0, 0, 1, 1, 1, 1)
FLOAT = {
    "its input isn't quantized": lambda b, x, w: relax.op.nn.conv2d(x, b.emit(quantize(w, WEIGHT))),
    "its weight isn't quantized": lambda b, x, w: relax.op.nn.conv2d(b.emit(quantize(x, ACT)), w),
    "layout is NHWC": lambda b, x, w: relax.op.nn.conv2d(
        b.emit(quantize(x, ACT)),
        b.emit(quantize(relax.const(np.ones((2, 3, 1, 1), np.float32)), WEIGHT)),
        data_layout="NHWC",
    ),
    "is a vector": lambda b, x, w: relax.op.matmul(
        b.emit(quantize(x, ACT)), b.emit(quantize(relax.const(np.ones(3, "f4")), WEIGHT))
    ),
    "conv3d has no branch form": lambda b, x, w: relax.op.nn.conv3d(
        b.emit(relax.op.expand_dims(b.emit(quantize(x, ACT)), 2)),
        b.emit(relax.op.expand_dims(b.emit(quantize(w, WEIGHT)), 2)),
    ),
    "joins tensors of different encodings": lambda b, x, w: relax.op.nn.conv2d(
        b.emit(joined(b, x, ACT, Encoding.unsigned(2, 0.25))), b.emit(quantize(w, WEIGHT))
    ),
    "joins tensors, one of which isn't quantized": lambda b, x, w: relax.op.nn.conv2d(
        b.emit(relax.op.concat([b.emit(quantize(x, ACT)), x], 2)), b.emit(quantize(w, WEIGHT))
    ),
    "padded with 0.3, which is no level": lambda b, x, w: relax.op.nn.conv2d(
        b.emit(relax.op.nn.pad(b.emit(quantize(x, ACT)), SURROUND, "constant", 0.3)),
        b.emit(quantize(w, WEIGHT)),
    ),
    "second operand isn't quantized": lambda b, x, w: relax.op.matmul(b.emit(quantize(x, ACT)), x),
}


@pytest.mark.parametrize("reason", FLOAT)
def test_what_stays_float_says_why(reason, module_of, assert_same_ir):
    weight = relax.const(rng.normal(size=(3, 3, 1, 1)).astype(np.float32))
    mod = module_of([(1, 3, 3, 3)], lambda b, x: b.emit(FLOAT[reason](b, x, weight)))
    ((_, found),) = float_layers(mod)
    assert reason in found
    assert_same_ir(Lower()(mod), mod)


def test_what_is_lowered_is_no_float_layer(random_layer, layers_module):
    assert float_layers(layers_module([random_layer(0, WEIGHT, ACT)])) == []


def weight_of(case, builder, x):
    """A quantized weight that can't be lowered."""
    values = rng.normal(size=(8, 8)).astype(np.float32)
    if case == "has NaN":
        values[0, 0] = np.nan
        return builder.emit(quantize(relax.const(values), WEIGHT, layer="fc"))
    if case == "scale per entry of axis 0":
        per_input = Encoding(2, np.ones(8), np.zeros(8))
        return builder.emit(quantize(relax.const(values), per_input, axis=0, layer="fc"))
    raise ValueError(case)


@pytest.mark.parametrize("case", ["has NaN", "scale per entry of axis 0"])
def test_weights_that_cannot_be_lowered_are_refused(case, module_of, outputs_of):
    def body(builder, x):
        a = builder.emit(quantize(x, ACT))
        return builder.emit(relax.op.matmul(a, weight_of(case, builder, x)))

    with pytest.raises(UnsupportedError, match=f"'fc'.*{case}"):
        outputs_of(module_of([(8, 8)], body), [])


def test_a_convolution_with_weights_made_at_run_time_is_refused(module_of, outputs_of):
    def body(builder, x, w):
        a, w = builder.emit(quantize(x, ACT)), builder.emit(quantize(w, WEIGHT, layer="conv"))
        return builder.emit(relax.op.nn.conv2d(a, w))

    with pytest.raises(UnsupportedError, match=r"'conv'.*isn't constant.*Bind"):
        outputs_of(module_of([(1, 3, 4, 4), (2, 3, 1, 1)], body), [])


def test_a_scale_per_input_channel_is_refused(random_layer, module_of, outputs_of):
    layer = random_layer(0, WEIGHT, ACT, name="conv")
    per_channel = Encoding(2, np.arange(1.0, 9.0), 0.0)

    def body(builder, x):
        a = builder.emit(quantize(x, per_channel, axis=1))
        w = builder.emit(quantize(relax.const(layer.weight_codes.astype("f4")), WEIGHT))
        return builder.emit(relax.op.nn.conv2d(a, w))

    with pytest.raises(UnsupportedError, match=r"conv2d.*per channel.*per tensor"):
        outputs_of(module_of([layer.act_codes.shape], body), [])


def pooled_module(encoding, module_of):
    """A convolution of ones behind a max pooling."""

    def body(builder, x):
        a = builder.emit(quantize(x, encoding))
        a = builder.emit(relax.op.nn.max_pool2d(a, (2, 2), (1, 1), (1, 1)))
        w = relax.const(np.ones((2, 3, 1, 1), "f4"))
        return builder.emit(relax.op.nn.conv2d(a, builder.emit(quantize(w, WEIGHT, layer="conv"))))

    return module_of([(1, 3, 4, 4)], body)


def test_pooling_of_codes_that_fall_is_refused(module_of, outputs_of):
    falling = Encoding(2, 1.0, 1.0, (3, -1))
    with pytest.raises(UnsupportedError, match=r"max_pool2d before layer 'conv'"):
        outputs_of(pooled_module(falling, module_of), [])


@pytest.mark.parametrize("encoding", [Encoding.ternary(), UNEVEN], ids=["ternary", "uneven"])
def test_codes_that_rise_are_pooled(encoding, module_of, outputs_of, same):
    mod, x = pooled_module(encoding, module_of), rng.normal(0, 2, (1, 3, 4, 4)).astype("f4")
    found = [outputs_of(mod, [x], **options)[0] for options in ({}, dict(pipeline=no_lowering))]
    assert same(*found)


def test_an_accumulator_beyond_int32_is_refused(module_of, outputs_of):
    eight = Encoding.unsigned(8)

    def body(builder, x):
        a = builder.emit(quantize(x, eight))
        w = builder.emit(quantize(relax.const(np.full((33000, 1), 255.0, "f4")), eight, layer="fc"))
        return builder.emit(relax.op.matmul(a, w))

    with pytest.raises(UnsupportedError, match=r"dense layer 'fc'.*int32"):
        outputs_of(module_of([(1, 33000)], body), [])


def random_values(encoding, *shape):
    return encoding.dequantize(rng.integers(0, 2**encoding.bits, shape, dtype=np.uint8))


@pytest.mark.parametrize(
    "shapes", [((3, 5), (5, 4)), ((2, 3, 5), (2, 5, 4)), ((2, 1, 3, 5), (3, 5, 4))], ids=str
)
def test_products_of_activations(shapes, module_of, outputs_of, ops_of, same):
    a, b = Encoding.symmetric(3, 2.0), Encoding.unsigned(2, 2.0)

    def body(builder, x, y):
        x, y = builder.emit(quantize(x, a)), builder.emit(quantize(y, b))
        return builder.emit(relax.op.matmul(x, y))

    mod = module_of(shapes, body)
    assert "bitenc.branch_matmul" in ops_of(Lower()(mod))
    x, y = random_values(a, *shapes[0]), random_values(b, *shapes[1])
    (product,) = outputs_of(mod, [x, y])
    assert same(product, x @ y)


def permuted(*axes):
    return lambda _builder, y: relax.op.permute_dims(y, axes)


def swapped(_builder, y):
    return relax.op.permute_dims(y, [*range(len(y.ty.shape) - 2), -1, -2])


def by_head(builder, y):
    """(N, heads, features, tokens) from (N, tokens, heads x features), as attention has keys."""
    batch, tokens, width = y.ty.shape
    heads = builder.emit(relax.op.reshape(y, (batch, tokens, 2, int(width) // 2)))
    return swapped(builder, builder.emit(relax.op.permute_dims(heads, [0, 2, 1, 3])))


# Shapes of both operands, what moves the second, and ops that are left of that.
TRANSPOSED = [
    ((3, 5), (4, 5), swapped, []),
    ((2, 3, 5), (2, 4, 5), swapped, []),
    ((2, 2, 3, 5), (4, 5), swapped, ["relax.broadcast_to"]),
    ((2, 3, 4, 5), (3, 6, 5), swapped, ["relax.broadcast_to"]),
    ((3, 2, 7, 5), (3, 4, 10), by_head, ["relax.permute_dims"]),
    # Terms don't lie side by side in memory: the operand stays as it is.
    ((2, 3, 5), (5, 2, 4), permuted(1, 0, 2), ["relax.permute_dims"]),
    ((2, 3, 5), (5, 4, 2), permuted(2, 0, 1), ["relax.permute_dims"]),
    ((3, 5), (5, 4), lambda _, y: y, []),
    ((2, 2, 4), (2, 2, 4), lambda _, y: relax.op.reshape(y, (2, 4, 2)), []),
]


@pytest.mark.sweep(2)
@pytest.mark.parametrize("shape, other, move, left", TRANSPOSED)
def test_transposed_operands_of_products(shape, other, move, left, module_of, outputs_of, same):
    a, b = Encoding.symmetric(3, 2.0), Encoding.signed(2, 2.0)

    def body(builder, x, y):
        x, y = builder.emit(quantize(x, a)), builder.emit(quantize(y, b))
        return builder.emit(relax.op.matmul(x, builder.emit(move(builder, y))))

    mod, calls = module_of([shape, other], body), []
    lowered = Lower()(mod)
    visit_calls(lowered, lambda call, _graph: calls.append(call))
    moved = {"relax.permute_dims", "relax.broadcast_to"}
    assert [op_name(call) for call in calls if op_name(call) in moved] == left
    (product,) = (call for call in calls if is_call_to(call, branch_matmul_op))
    assert transposes_b(product) == (move in (swapped, by_head))
    x, y = random_values(a, *shape), random_values(b, *other)
    (expected,) = outputs_of(mod, [x, y], pipeline=no_lowering)
    (found,) = outputs_of(mod, [x, y])
    assert same(found, expected)


def test_matrices_of_weights_that_differ_by_batch(module_of, outputs_of, same):
    values, act = random_values(WEIGHT, 2, 5, 4), Encoding.unsigned(2, 2.0)

    def body(builder, x):
        w = builder.emit(quantize(relax.const(values), WEIGHT))
        return builder.emit(relax.op.matmul(builder.emit(quantize(x, act)), w))

    x = random_values(act, 2, 3, 5)
    (product,) = outputs_of(module_of([x.shape], body), [x])
    assert same(product, x @ values)


def test_a_product_of_activations_beyond_int32_is_refused(module_of, outputs_of):
    eight = Encoding.symmetric(8)

    def body(builder, x, y):
        x, y = builder.emit(quantize(x, eight)), builder.emit(quantize(y, eight))
        return builder.emit(relax.op.matmul(x, y))

    with pytest.raises(UnsupportedError, match=r"matmul.*int32"):
        outputs_of(module_of([(1, 2, 33100), (1, 33100, 2)], body), [])


MOVES = {
    "transposed": lambda b, w: relax.op.permute_dims(w, (1, 0, 2, 3)),
    "cut": lambda b, w: relax.op.strided_slice(w, [0, 1], [1, 0], [4, 6], [1, 2]),
    "turned": lambda b, w: relax.op.flip(w, 2),
    "back to front": lambda b, w: relax.op.strided_slice(w, [0], [5], [-9], [-1]),
    "chosen": lambda b, w: relax.op.take(w, relax.const(np.array([3, 0, 3]), "int64"), 0),
    "repeated": lambda b, w: relax.op.tile(w, (1, 2, 1, 1)),
    "flattened": lambda b, w: relax.op.reshape(b.emit(relax.op.flatten(w)), (2, 18, 3, 3)),
}


@pytest.mark.parametrize("move", MOVES)
def test_weights_may_be_moved_behind_their_quantizer(move, module_of, outputs_of, only, same):
    """Scales go the way of their weights; where they end up inside a channel is refused."""
    per_channel = Encoding(2, 2.0 ** np.arange(6), np.arange(6) / 2)
    axis = 1 if move == "transposed" else 0
    codes = rng.integers(0, 4, (6, 6, 3, 3), dtype=np.uint8)
    values, act = per_channel.dequantize(codes, axis), Encoding.unsigned(2, 2.0)

    def body(builder, x):
        w = builder.emit(quantize(relax.const(values), per_channel, axis, layer="conv"))
        w = builder.emit(MOVES[move](builder, w))
        x = builder.emit(relax.op.take(x, relax.const(np.arange(int(w.ty.shape[1])), "int64"), 1))
        return builder.emit(relax.op.nn.conv2d(builder.emit(quantize(x, act)), w))

    mod, x = module_of([(1, 18, 4, 4)], body), random_values(act, 1, 18, 4, 4)
    if move == "flattened":
        with pytest.raises(UnsupportedError, match=r"'conv'.*scale per entry of axis 0"):
            outputs_of(mod, [x])
        return
    (expected,) = outputs_of(mod, [x], pipeline=no_lowering)
    assert same(outputs_of(mod, [x], pipeline=only(Lower()))[0], expected)
