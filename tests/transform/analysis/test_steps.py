"""Activations between accumulator and encoder: folded exactly, or left as float arithmetic."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.op import branch_conv2d, branch_dense, encode, quantize
from tvm_bitenc.transform.fold import Fold, is_monotone

f32 = np.float32
op = relax.op
CHANNELS = 8
BYTES = Encoding.unsigned(8, 2.0)
SIGN = Encoding.symmetric(1, 2.0)
WEIGHT = np.tile(np.array([1, 0], np.uint8), (CHANNELS, 1))  # +1 and -1


def every_accumulator():
    """Codes (511, 2) whose differences, times 2, are all of -510, -508, ... 510."""
    wanted = np.arange(-255, 256)
    return np.stack([np.maximum(wanted, 0), np.maximum(-wanted, 0)], axis=1).astype(np.uint8)


def const(value):
    return relax.const(np.asarray(value, f32))


def along(values, ndim):
    return np.asarray(values, f32).reshape(1, -1, *[1] * (ndim - 2))


SLOPES = np.linspace(0, 1.2, CHANNELS).astype(f32)


def spelt(*calls):
    """An activation from functions of (input, what came before)."""

    def activation(b, x):
        y = x
        for call in calls:
            y = b.emit(call(b, x, y))
        return y

    return activation


def where_prelu(slope):
    return lambda b, x: b.emit(
        op.where(
            b.emit(op.greater(x, const(0.0))),
            x,
            b.emit(op.multiply(const(along(slope, len(x.ty.shape))), x)),
        )
    )


def hard_sigmoid(b, x):
    x = b.emit(op.clip(b.emit(op.add(x, const(3.0))), 0, np.inf))
    return b.emit(op.divide(b.emit(op.clip(x, -np.inf, 6)), const(6.0)))


def hard_swish(b, x):
    y = b.emit(op.clip(b.emit(op.add(x, const(3.0))), 0, 6))
    return b.emit(op.divide(b.emit(op.multiply(x, y)), const(6.0)))


RISING = {
    "relu": spelt(lambda b, x, y: op.nn.relu(x)),
    "relu6": spelt(lambda b, x, y: op.clip(x, 0, 6)),
    "hardtanh": spelt(lambda b, x, y: op.clip(x, -2, 2)),
    "leaky relu": spelt(lambda b, x, y: op.nn.leakyrelu(x, 0.1)),
    "prelu": spelt(lambda b, x, y: op.nn.prelu(x, const(SLOPES), 1)),
    "prelu, one slope": spelt(lambda b, x, y: op.nn.prelu(x, const([0.25]), 1)),
    "prelu by where": where_prelu(SLOPES),
    "hard sigmoid": hard_sigmoid,
    "maximum": spelt(lambda b, x, y: op.maximum(x, const(along(SLOPES, len(x.ty.shape))))),
    "minimum": spelt(lambda b, x, y: op.minimum(const(0.5), x)),
    "floor, ceil": spelt(
        lambda b, x, y: op.floor(y),
        lambda b, x, y: op.multiply(y, const(0.7)),
        lambda b, x, y: op.ceil(y),
    ),
    "round, truncate": spelt(
        lambda b, x, y: op.round(y),
        lambda b, x, y: op.multiply(y, const(0.7)),
        lambda b, x, y: op.trunc(y),
    ),
    "sign": spelt(lambda b, x, y: op.sign(x)),
    "heaviside": spelt(
        lambda b, x, y: op.greater_equal(x, const(0.0)),
        lambda b, x, y: op.where(y, const(1.0), const(-1.0)),
    ),
    "two quantizers": spelt(
        lambda b, x, y: quantize(x, Encoding.signed(4, 0.7)),
        lambda b, x, y: quantize(y, Encoding.unsigned(3, 0.9)),
    ),
}
TURNING = {
    "leaky relu, falling": spelt(lambda b, x, y: op.nn.leakyrelu(x, -0.4)),
    "prelu, one slope falls": spelt(lambda b, x, y: op.nn.prelu(x, const([*SLOPES[:-1], -0.5]), 1)),
    "prelu by where, one slope falls": where_prelu([*SLOPES[:-1], -0.5]),
    "absolute": spelt(lambda b, x, y: op.abs(x)),
    "hard swish": spelt(lambda b, x, y: op.multiply(const(40.0), hard_swish(b, x))),
}
LIBRARY = {
    "sigmoid": spelt(lambda b, x, y: op.sigmoid(x)),
    "tanh": spelt(lambda b, x, y: op.tanh(x)),
    "silu": spelt(lambda b, x, y: op.nn.silu(x)),
    "exponential": spelt(lambda b, x, y: op.exp(x)),
}
ACTIVATIONS = {**RISING, **TURNING, **LIBRARY}


def dense_module(module_of, activation, scale, shift, encodings, after=None):
    """Accumulators -510 ... 510 of each channel, scaled and shifted, then all that is given."""

    def body(b, codes):
        acc = b.emit(branch_dense(codes, BYTES, WEIGHT, SIGN, layer="fc"))
        x = b.emit(op.multiply(b.emit(op.astype(acc, "float32")), const(along(scale, 2))))
        x = ACTIVATIONS[activation](b, b.emit(op.add(x, const(along(shift, 2)))))
        if after is not None:
            x = b.emit(op.multiply(x, const(along(after, 2))))
        return [b.emit(encode(x, encoding)) for encoding in encodings]

    return module_of([(511, 2)], body, "uint8")


def constants(seed):
    rng = np.random.default_rng(seed)
    scale = rng.choice([-1, 1], CHANNELS) * rng.uniform(0.001, 0.1, CHANNELS)
    after = rng.choice([-1, 1], CHANNELS) * rng.uniform(0.2, 2, CHANNELS)
    return scale, rng.normal(size=CHANNELS), after


ENCODINGS = [
    Encoding.symmetric(1, 0.5),
    Encoding.signed(3, 0.3),
    Encoding(4, 0.1, 7.5),
    Encoding.signed(8, 0.01),
]


@pytest.mark.sweep(4)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_accumulator(activation, module_of, outputs_of, ops_of, only, same):
    """Integers agree whether folded or not, between batch-norms of either sign."""
    scale, shift, after = constants(0)
    mod = dense_module(module_of, activation, scale, shift, ENCODINGS, after)
    ops = ops_of(Fold()(mod))
    if activation in RISING:
        assert ops.count("bitenc.threshold") == len(ENCODINGS)
    if activation in LIBRARY:
        assert ops.count("bitenc.encode") == len(ENCODINGS)
    if activation in TURNING:  # A coarse encoder may see no turn.
        assert ops.count("bitenc.encode") >= 2
    codes = every_accumulator()
    unfolded, compiled = (outputs_of(mod, [codes], **o) for o in ({"pipeline": only()}, {}))
    assert all(map(same, unfolded, compiled))
    assert all(len(np.unique(codes)) > 1 for codes in unfolded)


@settings(max_examples=6, deadline=None)
@given(
    st.sampled_from(sorted(ACTIVATIONS)),
    st.integers(1, 8),
    st.floats(0.0625, 2.0, width=32),
    st.integers(0, 16),
    st.integers(0, 2**20),
)
def test_any_activation(module_of, outputs_of, only, same, activation, bits, scale, twice, seed):
    encodings = [Encoding(bits, scale, min(twice, 2**bits) / 2)]
    mod = dense_module(module_of, activation, *constants(seed)[:2], encodings)
    codes = every_accumulator()
    (unfolded,), (compiled,) = (
        outputs_of(mod, [codes], **options) for options in ({"pipeline": only()}, {})
    )
    assert same(unfolded, compiled)


def test_hard_swish_folds_where_the_encoder_sees_no_turn(module_of, ops_of):
    """Its dip below 0 is no deeper than 0.375: code 0 for unsigned levels."""
    scale, shift, _ = constants(0)

    def ops(encoding):
        mod = dense_module(module_of, "hard swish", scale / 40, shift, [encoding])
        return ops_of(Fold()(mod))

    assert "bitenc.threshold" in ops(Encoding.unsigned(4, 0.5))
    assert "bitenc.encode" in ops(Encoding.signed(6, 0.5))


def image_module(activation, module_of, random_layer):
    layer = random_layer(0, Encoding.signed(2, 2.0), BYTES, out_channels=CHANNELS)

    def body(b, codes):
        acc = branch_conv2d(
            codes, layer.act, layer.weight_codes, layer.weight, padding=(1, 1, 1, 1)
        )
        x = b.emit(op.astype(b.emit(acc), "float32"))
        x = b.emit(op.multiply(x, const(along(SLOPES - 0.7, 4) * f32(0.01))))
        x = ACTIVATIONS[activation](b, x)
        return [b.emit(encode(x, Encoding.signed(4, 0.7))), x]

    return module_of([layer.act_codes.shape], body, "uint8"), layer.act_codes


@pytest.mark.sweep(2)
@pytest.mark.parametrize("activation", ["leaky relu", "prelu", *TURNING, "sigmoid"])
def test_floats_of_images(activation, module_of, random_layer, outputs_of, only, same):
    """Where floats are needed, activations join convolutions or follow them, channels last."""
    mod, codes = image_module(activation, module_of, random_layer)
    unfolded = outputs_of(mod, [codes], pipeline=only())
    compiled = outputs_of(mod, [codes], strategy="int8")
    assert all(map(same, unfolded, compiled))


def test_monotone_by_trial():
    def codes_of(acc):
        return np.abs(acc).clip(0, 3).astype(np.uint8)

    low, high = np.array([-3, 0]), np.array([-1, 3])
    assert is_monotone(codes_of, low, high)
    assert not is_monotone(codes_of, low, np.array([-1, 3]) + 2)
    assert not is_monotone(codes_of, low, np.array([-1, 2**40]))  # Too many to try.
