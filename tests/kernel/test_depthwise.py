"""Depthwise kernels give the integers of `tvm_bitenc.encoding`, bit for bit."""

import itertools

import numpy as np
import pytest
from tvm import relax

import tvm_bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.schedule import x86

# Compiling many kernels takes minutes.
pytestmark = pytest.mark.slow

CHANNELS = (1, 3, 17, 64, 66, 130)
BITS = ((1, 1), (2, 2), (3, 5), (8, 8))
TARGETS = ("native", "x86-64-v3")
WINDOWS = (
    dict(padding=1),
    dict(padding=1, stride=2),
    dict(padding=2, dilation=2),
    dict(padding=(0, 1, 2, 3), stride=(1, 2)),
    dict(kernel=(5, 4), padding=(2, 1)),
    dict(kernel=1),
    dict(kernel=(6, 5)),
)


def depthwise(random_layer, seed, weight, act, channels, **window):
    return random_layer(
        seed, weight, act, channels=channels, out_channels=channels, groups=channels, **window
    )


@pytest.fixture
def products(monkeypatch):
    """Names of the products that kernels are made of, as they are built."""
    names, write = [], x86.conv2d_kernel

    def record(layer, product, *rest):
        names.append(product.name)
        return write(layer, product, *rest)

    monkeypatch.setattr(x86, "conv2d_kernel", record)
    return names


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("bits", BITS, ids=str)
def test_channels_and_windows(bits, target, random_layer, kinds, assert_exact):
    names = itertools.cycle(itertools.product(kinds, kinds))
    layers = [
        depthwise(random_layer, i, kinds[w](bits[0], 2.0), kinds[a](bits[1], 2.0), c, **window)
        for i, ((window, c), (w, a)) in enumerate(zip(itertools.product(WINDOWS, CHANNELS), names))
    ]
    assert_exact(layers, target=target)


@pytest.mark.parametrize("target", TARGETS)
def test_encodings(target, random_layer, kinds, assert_exact):
    rng = np.random.default_rng(0)
    per_channel = Encoding(2, 2.0 ** rng.integers(-3, 4, 66), rng.integers(0, 7, 66) / 2)
    weights = [
        Encoding.ternary(2.0),
        per_channel,
        Encoding(3, 2.0, -40.5),
        Encoding(3, 2.0, 0.5, (1, 1, 3)),
    ]
    acts = [kinds["symmetric"](3, 2.0), Encoding(2, 2.0, 100.0), Encoding(2, 2.0, 1.0, (3, 1))]
    layers = [
        depthwise(random_layer, i, *pair, 66, padding=1, batch=2)
        for i, pair in enumerate(itertools.product(weights, acts))
    ]
    assert_exact(layers, target=target)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("bits", [(2, 1), (2, 2), (3, 2), (8, 8)], ids=str)
@pytest.mark.parametrize("out_bits", [1, 2, 3, 5, 8])
def test_thresholds(out_bits, bits, target, random_layer, kinds, module_of, same):
    """Two layers in a row: what lies between them is packed planes."""
    first = depthwise(
        random_layer, 0, kinds["signed"](bits[0], 2.0), kinds["symmetric"](bits[1], 2.0), 66,
        padding=1,
    )  # fmt: skip
    second = depthwise(
        random_layer, 1, kinds["symmetric"](2, 2.0), kinds["unsigned"](out_bits, 0.3), 66, stride=2
    )
    rng, acc = np.random.default_rng(0), first.accumulators()
    gamma = rng.normal(size=(1, 66, 1, 1)) * 4 / np.abs(acc).std()
    gamma, beta = gamma.astype(np.float32), rng.normal(size=(1, 66, 1, 1)).astype(np.float32)

    def body(builder, x):
        x = builder.emit(relax.op.multiply(first.emit(builder, x), relax.const(gamma)))
        return second.emit(builder, builder.emit(relax.op.add(x, relax.const(beta))))

    model = tvm_bitenc.build(module_of([first.act_codes.shape], body), target=target)
    codes = second.act.quantize(first.reference() * gamma + beta)
    assert len(np.unique(codes)) > min(out_bits, 4)
    expected = second.accumulators(codes).astype(np.float32)
    expected = expected * np.float32(float(second.act.scale) * float(second.weight.scale) / 4)
    assert same(model(first.input), expected)


@pytest.mark.parametrize("strategy", ["auto", "int8"])
def test_every_depthwise_layer_has_this_kernel(
    strategy, random_layer, kinds, products, layers_module
):
    layers = [
        depthwise(random_layer, i, kinds["signed"](m, 2.0), kinds["unsigned"](k, 2.0), c, padding=1)
        for i, ((m, k), c) in enumerate(itertools.product(BITS, CHANNELS[1:]))
    ]
    model = tvm_bitenc.build(layers_module(layers), target="x86-64-v3", strategy=strategy)
    assert set(products) == {"depthwise"}
    assert {row.strategy for row in model.report().layers} == {"int8"}


@pytest.mark.parametrize("strategy", ["auto", "int8"])
@pytest.mark.parametrize("coefficients", [(200, 100), (-1, 2)], ids=str)
def test_codes_beyond_bytes_have_other_kernels(
    coefficients, strategy, random_layer, kinds, products, assert_exact
):
    act = Encoding(2, 2.0, 1.0, coefficients)
    layer = depthwise(random_layer, 0, kinds["symmetric"](2, 2.0), act, 66, padding=1)
    assert_exact([layer], target="x86-64-v3", strategy=strategy)
    assert "depthwise" not in products


def test_other_groups_have_other_kernels(random_layer, kinds, products, assert_exact):
    """A group with more channels on either side isn't depthwise."""
    weight, act = kinds["symmetric"](2, 2.0), kinds["unsigned"](2, 2.0)
    layers = [
        random_layer(0, weight, act, channels=66, out_channels=132, groups=66),
        random_layer(1, weight, act, channels=8, out_channels=8, groups=2),
    ]
    assert_exact(layers, target="x86-64-v3")
    assert "depthwise" not in products
