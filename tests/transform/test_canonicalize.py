"""Quantizers spelt in arithmetic, and what must not be mistaken for one."""

import numpy as np
import pytest
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_bitenc import op as bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.op import quantize
from tvm_bitenc.transform import no_lowering
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


def spelt(builder, x, scale, zero, top, *, low=0.0, last=None, swapped=False):
    """(clip(round(x / s + z), low, top) - z) * s, with z left out where it is None."""
    op = relax.op
    y = builder.emit(op.divide(x, relax.const(f32(scale))))
    if zero is not None:
        y = builder.emit(op.add(relax.const(f32(zero)), y) if swapped else op.add(y, c(zero)))
    y = builder.emit(op.clip(builder.emit(op.round(y)), low, top))
    if zero is not None:
        y = builder.emit(op.subtract(y, c(zero)))
    last = c(scale if last is None else last)
    return builder.emit(op.multiply(last, y) if swapped else op.multiply(y, last))


def c(value):
    return relax.const(f32(value))


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    "scale, zero, bits", [(0.1, None, 2), (0.1, 0.0, 1), (0.3, 4.0, 3), (2.0, 127.5, 8)]
)
def test_arithmetic_becomes_one_op(scale, zero, bits, swapped, module_of, assert_same_ir):
    before = module_of(
        [(2, 3)], lambda b, x: spelt(b, x, scale, zero, 2**bits - 1, swapped=swapped)
    )
    encoding = Encoding(bits, scale, zero or 0.0)
    after = module_of([(2, 3)], lambda b, x: b.emit(quantize(x, encoding)))
    assert_same_ir(Canonicalize()(before), after)


LOOKALIKES = {
    "low isn't whole": dict(zero=None, top=3, low=-1.5),
    "top isn't whole": dict(zero=None, top=2.5),
    "9 bits": dict(zero=None, top=511),
    "another scale": dict(zero=None, top=3, last=0.25),
    "negative scale": dict(zero=None, top=3, scale=-0.5),
    "zero point between codes": dict(zero=0.3, top=3),
}


@pytest.mark.parametrize("name", LOOKALIKES)
def test_lookalikes_stay(name, module_of, assert_same_ir):
    arguments = dict(scale=0.5) | LOOKALIKES[name]
    before = module_of([(2, 3)], lambda b, x: spelt(b, x, **arguments))
    assert_same_ir(Canonicalize()(before), before)


def test_the_inner_values_may_be_used_elsewhere(module_of, ops_of, outputs_of, only, same):
    def body(builder, x):
        divided = builder.emit(relax.op.divide(x, c(0.5)))
        clipped = builder.emit(relax.op.clip(builder.emit(relax.op.round(divided)), 0, 3))
        return [builder.emit(relax.op.multiply(clipped, c(0.5))), clipped]

    mod = module_of([(5,)], body)
    assert "bitenc.quantize" in ops_of(Canonicalize()(mod))
    x = f32([-1, 0.25, 0.75, 1.3, 9])
    before, after = (
        outputs_of(mod, [x], pipeline=pipeline) for pipeline in (no_lowering, only(Canonicalize()))
    )
    assert all(map(same, before, after))


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


def chain(builder, x, *steps):
    """Apply ops in a row; a step is (op, *constants)."""
    for op, *constants in steps:
        x = builder.emit(op(x, *(v if op is relax.op.clip else c(v) for v in constants)))
    return x


op = relax.op
SIGN = Encoding.symmetric(1, 2.0)
# A spelling, and the encoding that stands for it; the scale is 0.3.
SPELLINGS = {
    "signed": (
        [(op.divide, 0.3), (op.round,), (op.clip, -8, 7), (op.multiply, 0.3)],
        Encoding(4, 0.3, 8.0, late_zero_point=8),
    ),
    "narrow": (
        [(op.divide, 0.3), (op.round,), (op.clip, -7, 7), (op.multiply, 0.3)],
        Encoding(4, 0.3, 7.0, max_code=14, late_zero_point=7),
    ),
    "clip before round": (
        [(op.divide, 0.3), (op.clip, 0, 5), (op.round,), (op.multiply, 0.3)],
        Encoding(3, 0.3, 0.0, max_code=5),
    ),
    "zero point after rounding": (
        [(op.divide, 0.3), (op.round,), (op.add, 3), (op.clip, 0, 15), (op.subtract, 3),
         (op.multiply, 0.3)],
        Encoding(4, 0.3, 3.0, late_zero_point=3),
    ),
    "zero point before rounding": (
        [(op.divide, 0.3), (op.add, 3), (op.round,), (op.clip, 0, 15), (op.subtract, 3),
         (op.multiply, 0.3)],
        Encoding(4, 0.3, 3.0),
    ),
    "floor": (
        [(op.divide, 0.3), (op.floor,), (op.clip, 0, 3), (op.multiply, 0.3)],
        Encoding(2, 0.3, 0.0, rounding="floor"),
    ),
    "relu and minimum": (
        [(op.divide, 0.3), (op.round,), (op.nn.relu,), (op.minimum, 3), (op.multiply, 0.3)],
        Encoding(2, 0.3, 0.0),
    ),
    "reciprocal of a power of two": (
        [(op.multiply, 4), (op.round,), (op.clip, 0, 3), (op.multiply, 0.25)],
        Encoding(2, 0.25, 0.0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings(name, module_of, outputs_of, assert_same_ir, same):
    steps, encoding = SPELLINGS[name]
    before = module_of([(64,)], lambda b, x: chain(b, x, *steps))
    after = module_of([(64,)], lambda b, x: b.emit(quantize(x, encoding)))
    assert_same_ir(Canonicalize()(before), after)
    x = np.concatenate([(np.arange(-16, 16) + 0.5) * f32(0.3), np.linspace(-9, 9, 32)]).astype(f32)
    results = [outputs_of(mod, [x], pipeline=no_lowering) for mod in (before, after)]
    assert np.array_equal(*(y for (y,) in results))  # But for the sign of zero.


def compared(relation, threshold, yes, no):
    def body(builder, x):
        condition = builder.emit(relation(x, c(threshold)))
        return builder.emit(op.where(condition, c(yes), c(no)))

    return body


COMPARISONS = {
    "x >= 0": (compared(op.greater_equal, 0, 1, -1), lambda b, x: quantize(x, SIGN)),
    "x < 0": (compared(op.less, 0, -1, 1), lambda b, x: quantize(x, SIGN)),
    "x >= c": (
        compared(op.greater_equal, 0.3, 1, -1),
        lambda b, x: quantize(b.emit(op.subtract(x, c(0.3))), SIGN),
    ),
    "x > 0": (
        compared(op.greater, 0, 1, -1),
        lambda b, x: op.negative(b.emit(quantize(b.emit(op.negative(x)), SIGN))),
    ),
    "x <= c, two other levels": (
        compared(op.less_equal, 0.5, 2, 0),
        lambda b, x: quantize(
            b.emit(op.subtract(c(0.5), x)), Encoding(1, 2.0, 0.0, rounding="sign")
        ),
    ),
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons(name, module_of, assert_same_ir, outputs_of, same):
    body, quantizer = COMPARISONS[name]
    before = module_of([(10,)], body)
    after = module_of([(10,)], lambda b, x: b.emit(quantizer(b, x)))
    assert_same_ir(Canonicalize()(before), after)
    tiny = np.nextafter(f32(0), f32(1))
    x = f32([-1, -tiny, -0.0, 0, tiny, np.nextafter(f32(0.3), f32(0)), 0.3, 0.5, 1, 9])
    assert all(map(same, *(outputs_of(m, [x], pipeline=no_lowering) for m in (before, after))))


def test_levels_out_of_reach_of_float32_stay(module_of, assert_same_ir):
    before = module_of([(3,)], compared(op.greater_equal, 0, 1.0, 0.3))
    assert_same_ir(Canonicalize()(before), before)


def test_a_cast_comparison(module_of, assert_same_ir):
    def before(b, x):
        return b.emit(op.astype(b.emit(op.greater_equal(x, c(0))), "float32"))

    after = Encoding(1, 1.0, 0.0, rounding="sign")
    expected = module_of([(3,)], lambda b, x: b.emit(quantize(x, after)))
    assert_same_ir(Canonicalize()(module_of([(3,)], before)), expected)


def test_casts_there_and_back(module_of, assert_same_ir):
    def before(b, x, dtype):
        codes = chain(b, x, (op.round,), (op.clip, -8, 7))
        return b.emit(op.astype(b.emit(op.astype(codes, dtype)), "float32"))

    kept = module_of([(3,)], lambda b, x: chain(b, x, (op.round,), (op.clip, -8, 7)))
    assert_same_ir(Canonicalize()(module_of([(3,)], lambda b, x: before(b, x, "int8"))), kept)
    lossy = module_of([(3,)], lambda b, x: before(b, x, "uint8"))
    assert_same_ir(Canonicalize()(lossy), lossy)


def residue(builder, x, quantized):
    difference = builder.emit(op.subtract(quantized, x))
    return builder.emit(op.add(x, difference))


def test_the_residue_of_a_rounding(module_of, assert_same_ir):
    before = module_of([(3,)], lambda b, x: residue(b, x, b.emit(op.round(x))))
    assert_same_ir(Canonicalize()(before), module_of([(3,)], lambda b, x: b.emit(op.round(x))))


def test_the_residue_of_a_bounded_quantizer(module_of, assert_same_ir):
    """Within one step of its levels, x + (q - x) is q; where x may be far away, it isn't."""
    encoding = Encoding.unsigned(4, 0.3)

    def body(high):
        def residue_of(b, x):
            x = b.emit(op.clip(x, 0, high))
            return residue(b, x, b.emit(quantize(x, encoding)))

        return residue_of

    def exact(b, x):
        return b.emit(quantize(b.emit(op.clip(x, 0, 4.7)), encoding))

    assert_same_ir(Canonicalize()(module_of([(3,)], body(4.7))), module_of([(3,)], exact))
    far = module_of([(3,)], body(47.0))
    assert_same_ir(Canonicalize()(far), far)


def one_by_one(builder, a, w):
    return builder.emit(op.nn.conv2d(a, w))


def test_a_scale_per_output_channel(module_of, assert_same_ir):
    scales = np.float32([0.5, 0.3]).reshape(2, 1, 1, 1)
    values = relax.const(np.float32([[-1, 0.2], [0.1, 3]]).reshape(2, 2, 1, 1))
    steps = [(op.divide, scales), (op.round,), (op.clip, -4, 3), (op.multiply, scales)]

    def body(b, x, mark):
        w = chain(b, values, *steps)
        a = b.emit(quantize(x, Encoding.unsigned(2)))
        return one_by_one(b, a, mark(b, w))

    before = module_of([(1, 2, 3, 3)], lambda b, x: body(b, x, lambda b, w: w))
    grid = Encoding(3, [0.5, 0.3], [4.0, 4.0])
    after = module_of(
        [(1, 2, 3, 3)], lambda b, x: body(b, x, lambda b, w: b.emit(quantize(w, grid, 0)))
    )
    assert_same_ir(Canonicalize()(before), after)


def test_other_readers_keep_their_numbers(module_of, assert_same_ir):
    """Only a layer may see a level moved by its last bit."""
    steps = [(op.clip, 0, 1), (op.multiply, 15), (op.round,), (op.divide, 15), (op.sigmoid,)]
    before = module_of([(4, 4)], lambda b, x: chain(b, x, *steps))
    assert_same_ir(Canonicalize()(before), before)


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


def test_tensors_that_are_joined_get_quantizers_each(module_of, assert_same_ir):
    """Codes flow through the concatenation and the padding."""
    steps = [(op.clip, 0, 1), (op.multiply, 15), (op.round,), (op.divide, 15)]
    weight, grid = Encoding.signed(2, 1.0), Encoding(4, f32(1 / 15), 0.0)
    values = relax.const(np.ones((2, 2, 1, 1), f32))

    def body(b, x, y, mark):
        w = b.emit(quantize(values, weight))
        parts = relax.Tuple([mark(b, v) for v in [chain(b, v, *steps) for v in (x, y)]])
        joined = b.emit(op.concat(parts, axis=1))
        return one_by_one(b, b.emit(op.nn.pad(joined, [0, 0, 0, 0, 1, 1, 1, 1])), w)

    shapes = [(1, 1, 4, 4)] * 2
    before = module_of(shapes, lambda b, x, y: body(b, x, y, lambda b, v: v))
    after = module_of(shapes, lambda b, x, y: body(b, x, y, lambda b, v: b.emit(quantize(v, grid))))
    assert_same_ir(Canonicalize()(before), after)
