"""Depthwise kernels give the integers of `tvm_bitenc.encoding`, bit for bit."""

import itertools

import numpy as np
import pytest
from tvm import relax

import tvm_bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.op import branch_conv2d, threshold
from tvm_bitenc.reference import pads, pair
from tvm_bitenc.schedule import avx512, parallel

CHANNELS = (1, 3, 17, 64, 66, 130)
BITS = ((1, 1), (2, 2), (3, 5), (8, 8))
PRODUCTS = {"depthwise", "dot_depthwise"}
PADDED = ("symmetric", "signed")  # Kinds whose code 0, which padding holds, isn't the integer 0.
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
def wanted(target):
    """Name of the product that the target's depthwise layers get."""
    isa = avx512.isa_of(target)
    return "dot_depthwise" if isa is not None and isa.has_dot else "depthwise"


def products_of(kernels):
    return {product.name for product, _ in kernels}


def epilogues_of(kernels):
    return {type(epilogue).__name__ for _, epilogue in kernels}


def accumulators(builder, x, layer):
    """Emit the layer on codes."""
    window = layer.window
    call = branch_conv2d(
        x,
        layer.act,
        layer.weight_codes,
        layer.weight,
        strides=pair(window.get("stride", 1)),
        padding=pads(window.get("padding", 0)),
        dilation=pair(window.get("dilation", 1)),
        groups=window["groups"],
    )
    return builder.emit(call)


def drawn_thresholds(layer, out_bits, is_even):
    """Thresholds per channel inside the range of its accumulators: evenly spaced or at random."""
    rng = np.random.default_rng(out_bits)
    acc = np.moveaxis(layer.accumulators(), 1, 0).reshape(len(layer.weight_codes), -1)
    direction = rng.choice([-1, 1], len(acc))
    ends = np.stack([acc.min(axis=1), acc.max(axis=1)]) * direction
    low, high, count = ends.min(axis=0), ends.max(axis=0), 2**out_bits - 1
    if is_even:
        found = np.linspace(low, high, count + 2)[1:-1]
    else:
        found = np.sort(rng.uniform(low, high, (count, len(acc))), axis=0)
    return np.ceil(found).astype(np.int32), direction.astype(np.int32)


@pytest.mark.slow  # Compiling many kernels takes minutes.
@pytest.mark.parametrize("bits", BITS, ids=str)
def test_channels_and_windows(bits, target, random_layer, kinds, assert_exact):
    """Every window twice; bits, windows and channels meet in other ways at each pair of bits."""
    first = 3 * BITS.index(bits)
    channels = itertools.islice(itertools.cycle(CHANNELS), first, None)
    names = itertools.islice(itertools.cycle(itertools.product(kinds, kinds)), first, None)
    layers = [
        depthwise(random_layer, i, kinds[w](bits[0], 2.0), kinds[a](bits[1], 2.0), c, **window)
        for i, (window, c, (w, a)) in enumerate(zip(2 * WINDOWS, channels, names))
    ]
    assert_exact(layers, target=target)


@pytest.mark.slow  # Compiling many kernels takes minutes.
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
        depthwise(random_layer, i, *encodings, 66, padding=1, batch=2)
        for i, encodings in enumerate(itertools.product(weights, acts))
    ]
    assert_exact(layers, target=target)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("channels", [17, 66, 130])
def test_accumulators_that_are_returned(
    channels, target, wanted, random_layer, kinds, kernels, module_of, outputs_of
):
    layers = [
        depthwise(
            random_layer,
            i,
            kinds["signed"](m, 2.0),
            kinds[PADDED[i % 2]](k, 2.0),
            channels,
            **window,
        )
        for i, ((m, k), window) in enumerate(zip(BITS, WINDOWS))
    ]

    def body(builder, *codes):
        return [accumulators(builder, x, layer) for x, layer in zip(codes, layers)]

    mod = module_of([layer.act_codes.shape for layer in layers], body, "uint8")
    outputs = outputs_of(mod, [layer.act_codes for layer in layers], target=target)
    assert {str(y.dtype) for y in outputs} == {"int32"}
    wrong = [str(x) for x, y in zip(layers, outputs) if not np.array_equal(x.accumulators(), y)]
    assert not wrong
    assert products_of(kernels) == {wanted} and epilogues_of(kernels) == {"Integers"}


@pytest.mark.sweep(2)
@pytest.mark.parametrize("bits", [(1, 1), (2, 2), (8, 8)], ids=str)
def test_thresholds_of_all_epilogues(
    bits, target, wanted, random_layer, kinds, kernels, module_of, outputs_of, same
):
    """Few, even and uneven thresholds end in codes by different ways, in 16 and in 32 bits."""
    weight, acts = kinds["signed"](bits[0], 2.0), [kinds[a](bits[1], 2.0) for a in PADDED]
    cases = []
    for i, (out_bits, is_even) in enumerate([(1, True), (2, False), (4, True), (5, False)]):
        layer = depthwise(random_layer, i, weight, acts[i % 2], (17, 66, 130)[i % 3], padding=1)
        cases.append((layer, *drawn_thresholds(layer, out_bits, is_even)))

    def body(builder, *codes):
        return [
            builder.emit(threshold(accumulators(builder, x, layer), *limits))
            for x, (layer, *limits) in zip(codes, cases)
        ]

    mod = module_of([layer.act_codes.shape for layer, *_ in cases], body, "uint8")
    outputs = outputs_of(mod, [layer.act_codes for layer, *_ in cases], target=target)
    for y, (layer, limits, direction) in zip(outputs, cases):
        along = layer.accumulators() * direction[:, None, None]
        reached = along[:, None] >= limits[None, :, :, None, None]
        assert same(y, reached.sum(axis=1).astype(np.uint8)), str(layer)
    assert products_of(kernels) == {wanted}
    assert {"ComparedPlanes", "AffinePlanes", "SearchedPlanes"} == epilogues_of(kernels)


def test_threads_share_channels(
    target, wanted, random_layer, kinds, kernels, monkeypatch, assert_exact
):
    """Images of few rows are split by channels."""
    monkeypatch.setattr(parallel, "MIN_PARALLEL_MACS", 1)
    weight, act = kinds["symmetric"](2, 2.0), kinds["signed"](2, 2.0)
    layers = [
        depthwise(random_layer, i, weight, act, 256, size=size, padding=1)
        for i, size in enumerate([(1, 1), (2, 3), (7, 7)])
    ]
    assert_exact(layers, target=target, threads=4)
    assert products_of(kernels) == {wanted}
    assert any(product.tile.splits > 1 for product, _ in kernels)


@pytest.mark.slow  # Compiling many kernels takes minutes.
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


@pytest.mark.slow  # Compiling many kernels takes minutes.
@pytest.mark.parametrize("strategy", ["auto", "int8"])
def test_every_depthwise_layer_has_this_kernel(
    strategy, random_layer, kinds, kernels, layers_module
):
    layers = [
        depthwise(random_layer, i, kinds["signed"](m, 2.0), kinds["unsigned"](k, 2.0), c, padding=1)
        for i, ((m, k), c) in enumerate(itertools.product(BITS, CHANNELS[1:]))
    ]
    model = tvm_bitenc.build(layers_module(layers), target="x86-64-v3", strategy=strategy)
    assert products_of(kernels) == {"depthwise"}
    assert {row.strategy for row in model.report().layers} == {"int8"}


@pytest.mark.parametrize("strategy", ["auto", "int8"])
@pytest.mark.parametrize("coefficients", [(200, 100), (-1, 2)], ids=str)
def test_codes_beyond_bytes_have_other_kernels(
    coefficients, strategy, target, random_layer, kinds, kernels, assert_exact
):
    act = Encoding(2, 2.0, 1.0, coefficients)
    layer = depthwise(random_layer, 0, kinds["symmetric"](2, 2.0), act, 66, padding=1)
    assert_exact([layer], target=target, strategy=strategy)
    assert PRODUCTS.isdisjoint(products_of(kernels))


def test_other_groups_have_other_kernels(target, random_layer, kinds, kernels, assert_exact):
    """A group with more channels on either side isn't depthwise."""
    weight, act = kinds["symmetric"](2, 2.0), kinds["unsigned"](2, 2.0)
    layers = [
        random_layer(0, weight, act, channels=66, out_channels=132, groups=66),
        random_layer(1, weight, act, channels=8, out_channels=8, groups=2),
    ]
    assert_exact(layers, target=target)
    assert PRODUCTS.isdisjoint(products_of(kernels))
