"""Codewords: tables of their sums, loops that don't overflow, and whole kernels."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.workloads import codeword_codes
from tests.kernel.cases import codes_of, layer_of, steps_of, thresholded
from tvm_bitenc.encoding import Encoding, planes
from tvm_bitenc.kernel.nest.tile import Tile
from tvm_bitenc.kernel.product import codebook
from tvm_bitenc.kernel.product.codebook import Codebook, largest_entry, parts_of, table_steps
from tvm_bitenc.kernel.product.lut_plan import MAX_ENTRY_SUM, MAX_PAIR_SUM
from tvm_bitenc.layer import BranchGeometry
from tvm_bitenc.schedule import arm, avx2, avx512, neon, x86
from tvm_bitenc.target import load_target

ZEN4, AVX2 = avx512.isa_of(load_target("znver4")), avx2.isa_of(load_target("x86-64-v3"))
ARM = neon.isa_of(load_target("cortex-a53"))


def test_which_layers_are_looked_up():
    for count, isas in ((16, [ZEN4, AVX2, ARM]), (17, [ZEN4, ARM]), (64, [ZEN4, ARM]), (65, [])):
        layer = layer_of((2, 2), 64, codewords=count).with_strategy("codebook")
        assert [isa for isa in (ZEN4, AVX2, ARM) if Codebook.applies(layer, isa)] == isas
        assert (x86.FAMILY.product_of(layer, ZEN4)[1] is Codebook) is (ZEN4 in isas)
    # Two sums of a window must fit a byte.
    for bits, applies in (((1, 3), True), ((2, 2), True), ((1, 4), False), ((3, 2), False)):
        assert Codebook.applies(layer_of(bits, 64, codewords=16), ZEN4) is applies
    negative = BranchGeometry((1, -2), (1,), 0)
    layer = dataclasses.replace(layer_of((1, 2), 64, codewords=16), geometry=negative)
    assert not Codebook.applies(layer, ZEN4)


@pytest.mark.parametrize("isa, rules, most", [(ZEN4, x86, 1.2), (AVX2, x86, 1.2), (ARM, arm, 2.5)])
def test_channels_that_share_sums_cost_their_endings_alone(isa, rules, most):
    alone = layer_of((1, 2), 64, codewords=16).with_strategy("codebook")
    four = dataclasses.replace(alone, copies=4)
    assert rules.SIZES["codebook"](four, isa) == rules.SIZES["codebook"](alone, isa)
    one, all_of_them = (rules.works(x, isa)["codebook"].instructions for x in (alone, four))
    assert one < all_of_them < most * one


@pytest.mark.parametrize("bits", [(1, 1), (1, 3), (2, 2)])
def test_steps_lead_to_the_sums_of_every_patch(bits):
    layer = layer_of(bits, 64, codewords=16, kernel=(2, 3))
    steps = table_steps(layer, 16).astype(np.int8)
    kernels, kappa = layer.codewords.kernels, layer.geometry.weight_coefficients
    weights = (planes(kernels, bits[0]) + 1) // 2  # plane, codeword, tap
    for patch in range(1 << 6):
        window = patch >> np.arange(6) & 1
        differing = (weights != window).sum(axis=2)
        found = steps[0] + window @ steps[1:]
        assert np.array_equal(found[: len(kernels)], np.array(kappa) @ differing)


@given(st.integers(1, 3), st.integers(1, 9), st.sampled_from([16, 32, 64]))
def test_parts_hold_every_bit_of_a_window_once(act_bits, taps, entries):
    layer = layer_of((1, act_bits), 64, codewords=16, kernel=(1, taps))
    parts = parts_of(layer, entries)
    assert sorted(itertools.chain(*parts)) == list(itertools.product(range(act_bits), range(taps)))
    assert sum(entries << len(part) for part in parts) <= codebook.TABLE_BYTES
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("channels", [1, 27, 28, 29, 300, 1100])
@pytest.mark.parametrize("bits", [(1, 1), (1, 3), (2, 2)])
def test_sums_are_widened_before_they_overflow(bits, channels):
    layer = layer_of(bits, channels, 256, codewords=16)
    product, seen = Codebook(layer, ZEN4, Tile(2, 1)), []
    entry = largest_entry(layer)
    for piece in product._pieces():
        assert piece.size * entry <= MAX_ENTRY_SUM
        assert product.is_narrow or piece.chunks * piece.size * entry <= MAX_PAIR_SUM
        seen += range(piece.first, piece.first + piece.flushes * piece.chunks * piece.size)
    assert seen == list(range(channels)) and product.blocks_at_once == 4
    assert product.is_narrow is (entry * channels < MAX_PAIR_SUM)


# Channels of a word, more, fewer; blocks that share a row; groups, strides, dilation, odd kernels.
LAYERS = [
    ((1, 1), 16, dict(channels=64, out_channels=64, padding=1)),
    ((1, 2), 16, dict(channels=70, out_channels=100, padding=1)),
    ((2, 2), 9, dict(channels=33, out_channels=256, padding=1, size=(5, 13))),
    ((1, 3), 16, dict(channels=130, out_channels=48, padding=1, stride=2, size=(7, 14))),
    ((1, 1), 16, dict(channels=24, out_channels=128, groups=2, padding=1)),
    ((1, 2), 12, dict(channels=64, out_channels=64, dilation=2, padding=2, size=(5, 9))),
    ((1, 2), 16, dict(channels=17, out_channels=40, kernel=(2, 2), padding=(0, 1, 2, 3))),
    ((1, 1), 16, dict(channels=128, out_channels=320, kernel=(1, 5), batch=2)),
    ((1, 1), 16, dict(channels=64, out_channels=24, kernel=3, size=(3, 3))),  # A dense layer.
]
WIDE = [((1, 1), 32, LAYERS[1][2]), ((1, 2), 64, LAYERS[2][2]), ((2, 2), 40, LAYERS[3][2])]


def of_codewords(random_layer, kinds, bits, count, window):
    """Layers of all kinds of encodings on each side, whose kernels are so many."""
    rest = itertools.islice(itertools.cycle(kinds.values()), 1, None)
    for seed, (weight, act) in enumerate(zip(kinds.values(), rest)):
        if window.get("groups", 1) > 1 and weight is not kinds["symmetric"]:
            continue  # Kernels of groups don't take sums of activations.
        layer = random_layer(seed, weight(bits[0], 2.0), act(bits[1], 2.0), **window)
        rng = np.random.default_rng(seed)
        codes = codeword_codes(count)(rng, layer.weight_codes.shape, bits[0])
        yield dataclasses.replace(layer, weight_codes=codes)


@pytest.mark.sweep(4)
@pytest.mark.parametrize("bits, count, window", LAYERS, ids=str)
def test_layers_are_exact(bits, count, window, target, kinds, random_layer, assert_exact, kernels):
    layers = list(of_codewords(random_layer, kinds, bits, count, window))
    assert_exact(layers, strategy="codebook", target=target)
    assert {type(product) for product, _ in kernels} == {Codebook}


@pytest.mark.sweep(1)
@pytest.mark.parametrize("bits, count, window", WIDE, ids=str)
def test_more_codewords(
    bits, count, window, native_avx512, kinds, random_layer, assert_exact, kernels
):
    layers = list(of_codewords(random_layer, kinds, bits, count, window))
    assert_exact(layers, strategy="codebook", target=native_avx512)
    assert {product.entries for product, _ in kernels} == {32 if count == 32 else 64}


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_layer(data, random_layer, assert_exact):
    weight = data.draw(st.sampled_from([Encoding.symmetric(1, 2.0), Encoding.signed(2, 2.0)]))
    act = Encoding.unsigned(data.draw(st.integers(1, 2)), 2.0)
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    kernel = data.draw(st.sampled_from([(2, 2), (3, 3), (1, 4), (4, 2)]))
    window = dict(
        channels=draw(4, 140),
        out_channels=draw(16, 270),
        size=(draw(4, 8), draw(4, 17)),
        kernel=kernel,
        padding=draw(0, 2),
        stride=draw(1, 2),
    )
    layer = random_layer(draw(0, 99), weight, act, **window)
    rng, shape = np.random.default_rng(draw(0, 99)), layer.weight_codes.shape
    codes = codeword_codes(draw(1, 16))(rng, shape, weight.bits)
    assert_exact([dataclasses.replace(layer, weight_codes=codes)], strategy="codebook")


def test_sums_beyond_sixteen_bits(target, random_layer, assert_exact, kernels):
    """All bits differ everywhere, so that what could overflow does."""
    weight, act = Encoding.symmetric(2, 2.0), Encoding.symmetric(2, 2.0)
    layer = random_layer(0, weight, act, channels=820, out_channels=64, size=(3, 3), padding=1)
    layer.act_codes[:], layer.weight_codes[:] = 3, 0
    assert_exact([layer], strategy="codebook", target=target)
    assert [product.is_narrow for product, _ in kernels] == [False]


@pytest.mark.sweep(1)
@pytest.mark.parametrize("out_bits", [1, 2, 4])
def test_codes_from_sums(out_bits, target, module_of, random_layer, outputs_of, same, kernels):
    cases = []
    for seed, out_channels in enumerate((64, 100, 256)):
        weight, act = Encoding.symmetric(1, 2.0), Encoding.unsigned(2, 2.0)
        window = dict(channels=68, out_channels=out_channels, size=(3, 13), padding=1)
        layer = random_layer(seed, weight, act, **window)
        codes = codeword_codes(16)(np.random.default_rng(seed), layer.weight_codes.shape, 1)
        layer = dataclasses.replace(layer, weight_codes=codes)
        cases.append((layer, *steps_of(layer, out_bits, out_bits == 2, seed)))
    mod, inputs = thresholded(cases, module_of), [layer.act_codes for layer, *_ in cases]
    outputs = outputs_of(mod, inputs, strategy="codebook", target=target)
    assert all(same(y, codes_of(*case)) for case, y in zip(cases, outputs))
    assert {type(product) for product, _ in kernels} == {Codebook}


def test_channels_that_share_their_codewords_too(target, random_layer, assert_exact, kernels):
    one = Encoding.symmetric(1, 2.0)
    layer = random_layer(0, one, one, channels=64, out_channels=64, size=(4, 7), padding=1)
    codes = codeword_codes(16)(np.random.default_rng(0), layer.weight_codes.shape, 1)
    tiled = dataclasses.replace(layer, weight_codes=np.concatenate([codes] * 4))
    assert_exact([tiled], strategy="codebook", target=target)
    assert [(p.layer.out_channels, e.layer.copies) for p, e in kernels] == [(64, 4)]


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_threads(threads, target, random_layer, assert_exact):
    one = Encoding.symmetric(1, 2.0)
    window = dict(channels=128, out_channels=512, size=(7, 7), padding=1)
    layer = random_layer(0, one, one, **window)
    codes = codeword_codes(16)(np.random.default_rng(0), layer.weight_codes.shape, 1)
    layer = dataclasses.replace(layer, weight_codes=codes)
    assert_exact([layer], strategy="codebook", target=target, threads=threads)
