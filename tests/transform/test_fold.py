"""Thresholds equal the float32 graph at every reachable accumulator, or aren't made."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_bitenc import op as bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.levels import encoding_of_levels
from tvm_bitenc.op import branch_conv2d, branch_dense, encode, quantize
from tvm_bitenc.op.registration import is_call_to
from tvm_bitenc.op.threshold import threshold_op
from tvm_bitenc.transform.fold import ALWAYS, NEVER, Fold, find_thresholds, range_of
from tvm_bitenc.transform.visit import visit_calls

f32 = np.float32
op = relax.op
BYTES = Encoding.unsigned(8, 2.0)
WEIGHT = np.array([1, 0], np.uint8)  # +1 and -1
EDGES = [0.0, -0.0, 1.0, -1.0, 0.5, -0.25, 1e30, -1e30, 1e-30, -1e-30, 3e38, 1e-45, 0.1, -1 / 3]


def channel_constants(channels=48):
    """Scales and shifts, one per channel: every pair of edges first, then random ones."""
    rng = np.random.default_rng(0)
    scale = np.array(EDGES * 2 + list(rng.normal(size=channels)))[:channels]
    shift = np.concatenate([np.zeros(len(EDGES)), rng.choice([-7, 0.5, 2, 1e30], channels)])
    return scale.astype(f32), shift[:channels].astype(f32)


SCALE, SHIFT = channel_constants()


def every_accumulator():
    """Codes (511, 2) whose differences, times 2, are all of -510, -508, ... 510."""
    wanted = np.arange(-255, 256)
    return np.stack([np.maximum(wanted, 0), np.maximum(-wanted, 0)], axis=1).astype(np.uint8)


def per_channel(values):
    return relax.const(np.asarray(values, f32).reshape(1, -1))


def step(builder, function, *args):
    return builder.emit(function(*args))


def affine(builder, x):
    x = step(builder, op.multiply, x, per_channel(SCALE))
    return step(builder, op.add, x, per_channel(SHIFT))


CHAINS = {
    "multiply, add": affine,
    "multiply, add, clip": lambda b, x: step(b, op.clip, affine(b, x), -1, 1),
    "relu": lambda b, x: step(b, op.nn.relu, affine(b, x)),
    "divide, subtract from": lambda b, x: step(
        b,
        op.subtract,
        per_channel(SHIFT),
        step(b, op.divide, x, per_channel(np.where(SCALE == 0, 3, SCALE))),
    ),
    "negative, maximum, minimum": lambda b, x: step(
        b,
        op.minimum,
        per_channel(np.abs(SHIFT)),
        step(b, op.maximum, step(b, op.negative, x), per_channel(SCALE)),
    ),
    "overflow to infinity": lambda b, x: step(
        b, op.clip, step(b, op.multiply, affine(b, x), relax.const(f32(1e30))), -3, 3
    ),
    "underflow to zero": lambda b, x: step(
        b, op.multiply, step(b, op.multiply, x, relax.const(f32(1e-42))), per_channel(SCALE)
    ),
    "a quantizer in between": lambda b, x: step(
        b, op.multiply, b.emit(quantize(affine(b, x), Encoding.signed(3, 0.7))), relax.const(f32(3))
    ),
}
ENCODERS = [
    *(Encoding(bits, scale, zero / 2) for bits, scale, zero in
      [(1, 1.0, 1), (2, 0.5, 3), (3, 2.0, 0), (4, 1 / 3, 16), (6, 0.1, 64), (8, 2.0, 255)]),
    Encoding.symmetric(1, 0.7),
]  # fmt: skip


def enumerated(chain, module_of):
    """Dense layer with the same two weights in each channel, a chain, and every encoder."""
    weight = np.tile(WEIGHT, (len(SCALE), 1))

    def body(builder, codes):
        acc = branch_dense(codes, BYTES, weight, Encoding.symmetric(1, 2.0), layer="fc")
        x = builder.emit(op.astype(builder.emit(acc), "float32"))
        x = chain(builder, x)
        return [builder.emit(encode(x, encoding)) for encoding in ENCODERS]

    return module_of([(511, 2)], body, "uint8")


@pytest.mark.sweep(2)
@pytest.mark.parametrize("chain", CHAINS)
def test_every_reachable_accumulator(chain, module_of, outputs_of, ops_of, only, same):
    mod = enumerated(CHAINS[chain], module_of)
    ops = ops_of(Fold()(mod))
    assert ops.count("bitenc.threshold") == len(ENCODERS) and "bitenc.encode" not in ops
    codes = every_accumulator()
    unfolded = outputs_of(mod, [codes], pipeline=only())
    folded = outputs_of(mod, [codes], pipeline=only(Fold()))
    compiled = outputs_of(mod, [codes])
    for encoding, *results in zip(ENCODERS, unfolded, folded, compiled):
        assert same(results[0], results[1]) and same(results[0], results[2]), encoding
    assert any(len(np.unique(codes)) > 1 for codes in unfolded)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("constant", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("function", ["multiply", "add", "divide"])
def test_infinite_constants_fold_exactly_or_not_at_all(
    function, constant, module_of, outputs_of, only, same
):
    """Where a value is no number, x * inf at 0 say, no threshold stands for it."""

    def body(builder, codes):
        # Accumulators 0 ... 510 and -40 ... 470: bisection needn't meet the 0 of the latter.
        weight, zero = np.array([[1]], np.uint8), Encoding.symmetric(1, 2.0)
        outputs = []
        for act in (BYTES, Encoding(8, 2.0, 20.0)):
            acc = builder.emit(branch_dense(codes, act, weight, zero, layer="fc"))
            x = builder.emit(op.astype(acc, "float32"))
            x = builder.emit(getattr(op, function)(x, relax.const(f32(constant))))
            x = builder.emit(op.maximum(x, relax.const(f32(-1e9))))
            outputs.append(builder.emit(encode(x, Encoding.signed(2, 1.0))))
        return outputs

    mod = module_of([(256, 1)], body, "uint8")
    codes = np.arange(256, dtype=np.uint8)[:, None]
    unfolded, folded = (outputs_of(mod, [codes], pipeline=p) for p in (only(), only(Fold())))
    assert all(map(same, unfolded, folded))


def codes_of(scale, shift, encoding):
    def function(acc):
        with np.errstate(all="ignore"):
            return encoding.quantize(acc.astype(f32) * f32(scale) + f32(shift))

    return function


def counted(thresholds, direction, acc):
    return (acc * direction >= thresholds[:, None, :]).sum(axis=0)


floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=150, deadline=None)
@given(floats, floats, st.integers(1, 8), st.integers(-3, 600), st.integers(-2000, 10))
def test_any_scale_and_shift(scale, shift, bits, twice_zero, low):
    encoding = Encoding(bits, 1.7, twice_zero / 2)
    function, acc = codes_of(scale, shift, encoding), np.arange(low, low + 1500)
    found = find_thresholds(function, np.array([low]), acc[-1:], 2**bits - 1)
    thresholds, direction = (value.astype(np.int64) for value in found)
    assert np.all(np.diff(thresholds, axis=0) >= 0)
    assert np.array_equal(counted(thresholds, direction, acc[:, None])[:, 0], function(acc))


@pytest.mark.parametrize("sign", [1, -1])
def test_ties_fall_where_the_encoder_puts_them(sign):
    """0.5 n rounds half to even: codes 0 0 1 2 2 2 3 of n = 0 ... 6."""
    function = codes_of(sign * 0.5, 0.0, Encoding.unsigned(2))
    low, high = sorted((0, sign * 9))
    found = find_thresholds(function, np.array([low]), np.array([high]), 3)
    assert found[0].tolist() == [[2], [3], [6]] and found[1].tolist() == [sign]


def test_thresholds_out_of_reach():
    function = codes_of(0.0, 2.0, Encoding.unsigned(2))
    thresholds, direction = find_thresholds(function, np.array([-5]), np.array([5]), 3)
    assert thresholds.tolist() == [[ALWAYS], [ALWAYS], [NEVER]] and direction.tolist() == [1]


def test_accumulators_stay_inside_their_range(random_layer, module_of):
    for seed, act in enumerate([Encoding.symmetric(2), Encoding.unsigned(2), Encoding(2, 1.0, 9)]):
        weight = Encoding(3, 1.0, np.arange(8) / 2)
        layer = random_layer(seed, weight, act, padding=1, batch=50)
        builder = relax.BlockBuilder()
        x = relax.Var("x", relax.TensorType(layer.act_codes.shape, "uint8"))
        call = branch_conv2d(x, act, layer.weight_codes, weight, padding=(1, 1, 1, 1))
        low, high = range_of(builder.normalize(call))
        acc = layer.accumulators()
        assert np.all(acc.min(axis=(0, 2, 3)) >= low) and np.all(acc.max(axis=(0, 2, 3)) <= high)


def code_steps_of(chain, encoding, module_of):
    """Names of the steps that stand beside the thresholds of a chain."""

    def body(builder, codes):
        weight, one = np.array([[1, 0], [0, 1]], np.uint8), Encoding.symmetric(1, 2.0)
        acc = builder.emit(branch_dense(codes, BYTES, weight, one, layer="fc"))
        x = chain(builder, builder.emit(op.astype(acc, "float32")))
        return [builder.emit(encode(x, encoding))]

    found = []

    def note(call, _graph):
        if is_call_to(call, threshold_op):
            found.append([str(name) for name in call.attrs.get("code_steps", ())])

    visit_calls(Fold()(module_of([(3, 2)], body, "uint8")), note)
    (names,) = found
    return names


def clipped(low, high):
    return lambda b, x: step(b, op.clip, step(b, op.multiply, x, relax.const(f32(0.01))), low, high)


@pytest.mark.parametrize(
    "low, high, stays",
    [(0, 1, False), (0, 2, False), (0, 0.8, True), (0.2, 1, True), (-9, 9, False)],
)
def test_a_limit_stays_if_codes_depend_on_it(low, high, stays, module_of):
    """Codes are 0 ... 15 of values 0 ... 1."""
    names = code_steps_of(clipped(low, high), Encoding(4, 1 / 15, 0.0), module_of)
    assert names == ["astype", "multiply", *["clip"] * stays, "divide", "round"]


def test_steps_stand_beside_many_thresholds_alone(module_of):
    assert code_steps_of(clipped(0, 1), Encoding(3, 1 / 7, 0.0), module_of) == []


def test_a_narrow_range_limits_its_codes(module_of):
    names = code_steps_of(clipped(0, 1), Encoding(4, 1 / 15, 0.0, max_code=14), module_of)
    assert names == ["astype", "multiply", "divide", "round", "minimum"]


def test_what_may_turn_keeps_its_limits(module_of):
    def chain(b, x):
        x = step(b, op.nn.leakyrelu, step(b, op.multiply, x, relax.const(f32(0.01))), -0.001)
        return step(b, op.clip, x, 0, 1)

    names = code_steps_of(chain, Encoding(4, 1 / 15, 0.0), module_of)
    assert names == ["astype", "multiply", "prelu", "clip", "divide", "round"]


def test_golden(assert_same_ir):
    """clip(acc 0.5 + 1, 0, 9) rounds to 3, 6 and 9 with pooling behind: the next integers."""
    act, one, codes3 = Encoding.unsigned(3, 2.0), Encoding.unsigned(1, 2.0), Encoding.unsigned(2, 3)
    weight = np.ones((1, 1, 1, 1), np.uint8)
    thresholds, direction = np.array([[2], [7], [14]]), np.array([1])  # 1.5, 4.5 and 7.5 of y2

    @I.ir_module
    class Before:
        @R.function
        def main(image: R.Tensor((1, 1, 4, 4), "uint8")):
            with R.dataflow():
                acc = bitenc.branch_conv2d(image, act, weight, one)
                y = R.astype(acc, "float32")
                y1 = R.multiply(y, R.const(0.5, "float32"))
                y2 = R.add(y1, R.const(1.0, "float32"))
                y3 = R.clip(y2, 0, 9)
                y4 = R.nn.max_pool2d(y3, (2, 2), (2, 2))
                codes = bitenc.encode(y4, codes3)
                R.output(codes)
            return codes

    @I.ir_module
    class After:
        @R.function
        def main(image: R.Tensor((1, 1, 4, 4), "uint8")):
            with R.dataflow():
                acc = bitenc.branch_conv2d(image, act, weight, one)
                lv = bitenc.threshold(acc, thresholds, direction)
                codes = R.nn.max_pool2d(lv, (2, 2), (2, 2))
                R.output(codes)
            return codes

    assert_same_ir(Fold()(Before), After)


def image_chain(case, builder, acc):
    """What lies between a convolution (1, 4, 6, 6) and an encoder."""
    x = builder.emit(op.astype(acc, "float32"))
    rng = np.random.default_rng(1)
    gamma = relax.const(rng.normal(size=(1, 4, 1, 1)).astype(f32))

    def pool(x):
        return builder.emit(op.nn.max_pool2d(x, (2, 2), (2, 2), (1, 1)))

    def times(x, value):
        value = value if isinstance(value, relax.Expr) else relax.const(np.asarray(value, f32))
        return builder.emit(op.multiply(x, value))

    return {
        "pool": lambda: pool(times(x, gamma)),
        "pool, rise": lambda: builder.emit(op.nn.relu(times(pool(times(x, gamma)), 0.3))),
        "pool, times zero": lambda: times(pool(times(x, gamma)), 0.0),
        "pool, reshape, permute": lambda: builder.emit(
            op.permute_dims(builder.emit(op.reshape(pool(times(x, gamma)), (1, 4, 16))), (0, 2, 1))
        ),
        "pool, fall": lambda: times(pool(x), -0.5),
        "pool, negative": lambda: builder.emit(op.negative(pool(x))),
        "pool, subtract from": lambda: builder.emit(op.subtract(relax.const(f32(4)), pool(x))),
        "pool, per channel": lambda: times(pool(x), gamma),
        "pool, divide by -0": lambda: builder.emit(op.divide(pool(x), relax.const(f32([-0.0])))),
        "over the image": lambda: times(x, rng.normal(size=(1, 1, 6, 6))),
        "over columns": lambda: times(x, rng.normal(size=6)),
        "times itself": lambda: times(x, x),
        "average": lambda: builder.emit(op.nn.avg_pool2d(x, (2, 2), (2, 2))),
        "absolute": lambda: builder.emit(op.abs(x)),
        "constant over": lambda: builder.emit(op.divide(relax.const(f32(9)), x)),
    }[case]()


FOLDS = ("pool", "pool, rise", "pool, times zero", "pool, reshape, permute")
STAYS = (
    "pool, fall",
    "pool, negative",
    "pool, subtract from",
    "pool, per channel",
    "pool, divide by -0",
    "over the image",
    "over columns",
    "times itself",
    "average",
    "absolute",
    "constant over",
)


def image_module(case, random_layer, module_of):
    layer = random_layer(
        0, Encoding.symmetric(1, 2.0), Encoding.symmetric(1, 2.0), out_channels=4, size=(6, 6)
    )

    def body(builder, codes):
        args = (layer.act, layer.weight_codes, layer.weight)
        acc = builder.emit(branch_conv2d(codes, *args, padding=(1, 1, 1, 1)))
        return builder.emit(encode(image_chain(case, builder, acc), Encoding.signed(3, 2.0)))

    return module_of([layer.act_codes.shape], body, "uint8"), layer.act_codes


@pytest.mark.sweep(2)
@pytest.mark.parametrize("case", FOLDS + STAYS)
def test_what_folds_and_what_stays(case, random_layer, module_of, outputs_of, ops_of, only, same):
    mod, codes = image_module(case, random_layer, module_of)
    ops = ops_of(Fold()(mod))
    assert ("bitenc.threshold" in ops) == (case in FOLDS)
    assert ("bitenc.encode" in ops) == (case in STAYS)
    (unfolded,), (compiled,) = outputs_of(mod, [codes], pipeline=only()), outputs_of(mod, [codes])
    assert same(unfolded, compiled)


UNEVEN = encoding_of_levels([0, 3, 7, 12], [-5.5, 0.5, 9.0], 2.0, 3.0)
FALLING = Encoding(2, 1.0, 1.0, (3, -1))  # Codes 2, 0, 3, 1 of rising levels.


@pytest.mark.parametrize(
    "encoding, folds",
    [
        (Encoding.ternary(), True),
        (UNEVEN, True),
        (Encoding(2, [1.0] * 4, 0.0), False),
        (FALLING, False),
    ],
    ids=["ternary", "uneven", "per channel", "falling codes"],
)
def test_codes_that_rise_become_thresholds(
    encoding, folds, random_layer, module_of, ops_of, outputs_of, only, same
):
    layer = random_layer(0, Encoding.symmetric(1), Encoding.symmetric(1), out_channels=4)

    def body(builder, codes):
        acc = builder.emit(branch_conv2d(codes, layer.act, layer.weight_codes, layer.weight))
        x = builder.emit(op.astype(acc, "float32"))
        return builder.emit(encode(x, encoding, 1 if encoding.is_per_channel else -1))

    mod = module_of([layer.act_codes.shape], body, "uint8")
    assert ("bitenc.threshold" in ops_of(Fold()(mod))) == folds
    found = [outputs_of(mod, [layer.act_codes], pipeline=only(*p))[0] for p in ([], [Fold()])]
    assert same(*found)


def test_sums_that_all_end_in_encoders_keep_their_floats(random_layer, module_of, ops_of):
    """A float shortcut is needed, though nothing but an encoder reads the sum in the end."""
    layer = random_layer(0, Encoding.symmetric(1), Encoding.symmetric(1), out_channels=8, padding=1)

    def body(builder, codes):
        args = (layer.act, layer.weight_codes, layer.weight)
        sums = []
        for _ in range(2):
            acc = builder.emit(branch_conv2d(codes, *args, padding=(1, 1, 1, 1)))
            sums.append(builder.emit(op.astype(acc, "float32")))
            codes = builder.emit(encode(sums[-1], Encoding.symmetric(1)))
        total = builder.emit(op.add(*sums))
        return [codes, builder.emit(encode(total, Encoding.signed(2)))]

    ops = ops_of(Fold()(module_of([layer.act_codes.shape], body, "uint8")))
    assert "bitenc.threshold" not in ops and ops.count("bitenc.encode") == 3
