"""Every compiled layer gives the integers of `tvm_bitenc.encoding`, bit for bit."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tvm import relax

import tvm_bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.strategy import STRATEGIES

ALL_BITS = list(itertools.product(range(1, 9), range(1, 9)))
CHANNELS = (1, 3, 17, 64, 65, 130)
KIND_NAMES = ("symmetric", "unsigned", "signed")
WINDOWS = (dict(padding=1), dict(padding=1, stride=2), dict(kernel=1), dict(stride=2))
CHOICES = ("auto", *STRATEGIES)
WHOLE = pytest.param(1, marks=pytest.mark.slow)


def one_in(count):
    """Run one case in `count` always, and all of them in the long sweeps: compiling takes long.

    A count that divides no axis lets the few cases meet most values of each.
    """
    return pytest.mark.parametrize("every", [count, WHOLE])


def shuffled(*axes):
    """The cross product of `axes` in a fixed random order, for ever."""
    combinations = list(itertools.product(*axes))
    random.Random(0).shuffle(combinations)
    return itertools.cycle(combinations)


def inputs_of_all_bits():
    """((M, K), (channels, batch)) for all bits.

    Two inputs for each K, for layers of the same input share the kernel that packs it, and that one
    takes longest to compile.
    """
    inputs = shuffled(CHANNELS, (1, 5))
    of_act_bits = {k: (next(inputs), next(inputs)) for k in range(1, 9)}
    return [((m, k), of_act_bits[k][m % 2]) for m, k in ALL_BITS]


@pytest.mark.sweep(2)
@one_in(11)
@pytest.mark.parametrize("strategy", CHOICES)
def test_conv2d_of_all_bits(every, strategy, random_layer, kinds, assert_exact):
    rest = shuffled(KIND_NAMES, KIND_NAMES, WINDOWS)
    layers = [
        random_layer(
            8 * m + k,
            kinds[weight](m, 2.0),
            kinds[act](k, 2.0),
            channels=channels,
            batch=batch,
            size=(5, 4),
            **window,
        )
        for ((m, k), (channels, batch)), (weight, act, window) in zip(inputs_of_all_bits(), rest)
    ]
    assert_exact(layers[::every], strategy=strategy)


@pytest.mark.sweep(2)
@one_in(11)
@pytest.mark.parametrize("strategy", CHOICES)
def test_dense_of_all_bits(every, strategy, random_layer, kinds, assert_exact):
    rest = shuffled(KIND_NAMES, KIND_NAMES, (7, 8))
    layers = [
        random_layer(
            8 * m + k,
            kinds[weight](m, 2.0),
            kinds[act](k, 2.0),
            channels=channels,
            batch=batch,
            out_channels=size,
            dense=True,
        )
        for ((m, k), (channels, batch)), (weight, act, size) in zip(inputs_of_all_bits(), rest)
    ]
    assert_exact(layers[::every], strategy=strategy)


@pytest.mark.sweep(2)
@one_in(17)
@pytest.mark.parametrize("bits", [(1, 1), (2, 3)], ids=str)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_channels_encodings_and_batch(every, strategy, bits, random_layer, kinds, assert_exact):
    m, k = bits
    layers = [
        random_layer(
            seed,
            kinds[weight](m, 2.0),
            kinds[act](k, 2.0),
            channels=channels,
            batch=batch,
            size=(3, 4),
            kernel=1,
            stride=2,
        )
        for seed, (weight, act, channels, batch) in enumerate(
            itertools.product(KIND_NAMES, KIND_NAMES, CHANNELS, (1, 5))
        )
    ]
    assert_exact(layers[::every], strategy=strategy)


def unusual_layers(random_layer):
    """Ternary planes, groups, dilation, uneven padding, per-channel parameters, tall kernels."""
    rng = np.random.default_rng(0)
    w2, a3 = Encoding.symmetric(2, 2.0), Encoding.unsigned(3, 2.0)
    half = Encoding.symmetric(3, 2.0)
    ternary = Encoding.ternary(2.0)
    per_channel = Encoding(2, 2.0 ** rng.integers(-3, 4, 8), rng.integers(0, 7, 8) / 2)
    options = [
        (ternary, a3, dict(padding=1)),
        (ternary, ternary, dict(padding=1)),
        (w2, ternary, dict(padding=1, stride=2)),
        (ternary, half, dict(dense=True)),
        (Encoding(3, 2.0, 0.5, (1, 1, 3)), Encoding(2, 2.0, 1.0, (3, 1)), dict(padding=1)),
        (w2, half, dict(groups=2, padding=1)),
        (w2, half, dict(groups=2, channels=128, padding=1)),
        (w2, a3, dict(groups=4, channels=68, out_channels=12, padding=1)),
        (w2, half, dict(groups=8, padding=1)),
        (w2, half, dict(groups=66, channels=66, out_channels=132, padding=1)),
        (w2, half, dict(dilation=2, padding=2)),
        (w2, half, dict(dilation=(1, 2), padding=(2, 1), stride=(2, 1))),
        (w2, half, dict(padding=(0, 1, 2, 3))),
        (w2, half, dict(padding=(3, 0, 0, 1), stride=(1, 3), kernel=(2, 4))),
        (w2, half, dict(kernel=(1, 5), padding=(0, 2))),
        (w2, half, dict(kernel=(6, 5))),
        (w2, half, dict(padding=4, size=(1, 1))),
        (per_channel, a3, dict(padding=1)),
        (per_channel, half, dict(padding=1, groups=2)),
        (per_channel, half, dict(dense=True)),
        (Encoding(1, 2.0, 0.5), Encoding(1, 2.0, 0.5), dict(padding=1)),
        (Encoding(3, 2.0, -40.5), Encoding(2, 2.0, 100.0), dict(padding=1)),
        (Encoding.symmetric(8, 2.0), Encoding.signed(8, 2.0), dict(dense=True, channels=4096)),
    ]
    return [random_layer(i, *pair, **window) for i, (*pair, window) in enumerate(options)]


@pytest.mark.sweep(1)
@pytest.mark.parametrize("strategy", [*STRATEGIES, pytest.param("auto", marks=pytest.mark.slow)])
def test_unusual_layers(strategy, random_layer, assert_exact):
    assert_exact(unusual_layers(random_layer), strategy=strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_thread_and_many_compute_the_same(strategy, random_layer, assert_exact):
    layer = random_layer(
        0,
        Encoding.symmetric(2, 2.0),
        Encoding.symmetric(2, 2.0),
        channels=64,
        out_channels=64,
        size=(24, 24),
        padding=1,
    )
    for threads in (None, 1):
        assert_exact([layer], strategy=strategy, threads=threads)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_sums_beyond_float32_integers(strategy, random_layer, outputs_of, layers_module, same):
    """An accumulator above 2^24 is rounded once, on its way to float32."""
    encoding = Encoding.unsigned(8, 2.0)
    layer = random_layer(0, encoding, encoding, channels=264, dense=True)
    layer.act_codes[:], layer.weight_codes[:] = 255, 255
    layer.weight_codes[:, 0] = np.arange(247, 255)
    assert layer.accumulators().min() > 2**24
    (y,) = outputs_of(layers_module([layer]), [layer.input], strategy=strategy)
    assert same(y, layer.accumulators().astype(np.float32))


shapes = st.fixed_dictionaries(
    {
        "channels": st.integers(1, 140),
        "out_channels": st.integers(1, 20),
        "batch": st.integers(1, 3),
        "size": st.tuples(st.integers(3, 7), st.integers(3, 7)),
        "kernel": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "stride": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "padding": st.tuples(*[st.integers(0, 3)] * 4),
    }
)
encodings = st.builds(
    lambda bits, twice_zero: Encoding(bits, 2.0, twice_zero / 2),
    st.integers(1, 8),
    st.integers(-4, 300),
)
configurations = st.lists(st.tuples(encodings, encodings, shapes), min_size=3, max_size=3)
few = settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.sweep(1)
@pytest.mark.parametrize("strategy", STRATEGIES)
@few
@given(configurations)
def test_any_shape(strategy, random_layer, assert_exact, configuration):
    layers = [random_layer(0, weight, act, **shape) for weight, act, shape in configuration]
    assert_exact(layers, strategy=strategy)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(few, max_examples=12)
@given(configurations)
def test_many_shapes(strategy, random_layer, assert_exact, configuration):
    layers = [random_layer(0, weight, act, **shape) for weight, act, shape in configuration]
    assert_exact(layers, strategy=strategy)


def chain(seed, bits, kinds, random_layer):
    """Three convolutions, a pooling and two dense layers; activations need a new rounding each."""
    (w0, a0), (w1, a1), (w2, a2), (w3, a3) = bits
    symmetric, unsigned, signed = (kinds[name] for name in KIND_NAMES)
    layers = [
        random_layer(
            seed, symmetric(w0, 2.0), symmetric(a0, 2.0), channels=3, size=(6, 6), padding=1
        ),
        random_layer(
            seed, signed(w1, 2.0), unsigned(a1, 0.37), channels=8, out_channels=66, padding=1
        ),
        random_layer(seed, symmetric(w2, 2.0), signed(a2, 0.21), channels=66, out_channels=6),
        random_layer(seed, signed(w3, 2.0), symmetric(a3, 0.3), channels=6, dense=True),
    ]
    rng = np.random.default_rng(seed)
    affine = []
    for layer in layers[:-1]:
        spread = 2 / np.abs(layer.accumulators()).std()
        gamma = (rng.normal(size=len(layer.weight_codes)) * spread).astype(np.float32)
        affine.append((gamma, rng.normal(size=gamma.shape).astype(np.float32)))
    return layers, affine


def chain_module(layers, affine, module_of):
    def body(builder, x):
        for i, layer in enumerate(layers):
            x = layer.emit(builder, x)
            if i == len(affine):
                return x
            gamma, beta = (relax.const(value.reshape(1, -1, 1, 1)) for value in affine[i])
            x = builder.emit(relax.op.multiply(x, gamma))
            x = builder.emit(relax.op.add(x, beta))
            if i == 1:
                x = builder.emit(relax.op.nn.max_pool2d(x, (2, 2), (2, 2)))
                x = builder.emit(relax.op.nn.relu(x))
            if i == 2:
                x = builder.emit(relax.op.reshape(x, (1, 6)))

    return module_of([layers[0].act_codes.shape], body)


def chain_reference(layers, affine):
    codes = layers[0].act_codes
    for i, layer in enumerate(layers):
        acc = layer.accumulators(codes)
        factor = np.float32(float(layer.act.scale) * float(layer.weight.scale) / 4)
        x = acc.astype(np.float32) * factor
        if i == len(affine):
            return x
        gamma, beta = (value.reshape(1, -1, 1, 1) for value in affine[i])
        x = x * gamma + beta
        if i == 1:
            n, c, h, w = x.shape
            x = np.maximum(x.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5)), np.float32(0))
        if i == 2:
            x = x.reshape(1, 6)
        codes = layers[i + 1].act.quantize(x)


CHAINS = (
    ((8, 8), (1, 2), (2, 3), (8, 8)),
    ((1, 1), (4, 4), (3, 1), (2, 5)),
    ((2, 7), (1, 6), (1, 1), (6, 2)),
)
# Always each strategy and each chain once.
ALWAYS = {(CHAINS[0], "auto"), (CHAINS[0], "xnor"), (CHAINS[1], "lut"), (CHAINS[2], "int8")}


@pytest.mark.parametrize(
    "bits, strategy",
    [
        pytest.param(*pair, marks=[] if pair in ALWAYS else pytest.mark.slow, id=f"{pair}")
        for pair in itertools.product(CHAINS, CHOICES)
    ],
)
def test_mixed_bits_in_one_network(bits, strategy, random_layer, kinds, module_of, same):
    layers, affine = chain(7, bits, kinds, random_layer)
    model = tvm_bitenc.build(chain_module(layers, affine, module_of), strategy=strategy)
    expected = chain_reference(layers, affine)
    assert len(np.unique(expected)) > 4
    assert same(model(layers[0].input), expected)
    assert [row.out_bits for row in model.report().layers] == [*(k for _, k in bits[1:]), 32]
