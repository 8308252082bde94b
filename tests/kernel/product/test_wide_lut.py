"""Tables of six activations: indices of weights, and whole kernels."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from tests.kernel.cases import codes_of, layer_of, steps_of, thresholded
from tvm_bitenc.branches import BranchGeometry
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.kernel.product import wide_lut
from tvm_bitenc.kernel.product.lut import Lut
from tvm_bitenc.kernel.product.lut_plan import Level
from tvm_bitenc.kernel.product.wide_lut import WideLut, wide_weights
from tvm_bitenc.kernel.product.wide_plan import TABLE, wide_plan
from tvm_bitenc.schedule import avx512, x86
from tvm_bitenc.target import load_target

ISA = avx512.isa_of(load_target("znver4"))


def test_which_layers_have_wide_tables():
    two = layer_of((2, 2), 64)
    assert x86.FAMILY.product_of(two.with_strategy("lut"), ISA)[1] is WideLut
    plain = avx512.isa_of(load_target("x86-64-v4"))
    assert x86.FAMILY.product_of(two.with_strategy("lut"), plain)[1] is Lut
    assert not plain.has_wide_lookup and not WideLut.applies(two, plain)
    # Sums that registers or bytes don't hold; half of a vector without a channel; split tables.
    for bits in ((5, 1), (1, 5)):
        assert not WideLut.applies(layer_of(bits, 64), ISA)
    for out_channels, applies in ((20, False), (22, True), (32, True), (96, True), (130, True)):
        assert WideLut.applies(layer_of((2, 2), 64, out_channels), ISA) is applies
    # A plane without another beside it takes whole vectors.
    for out_channels, applies in ((32, False), (43, True), (80, False), (96, True)):
        assert WideLut.applies(layer_of((1, 2), 64, out_channels), ISA) is applies
    for kappa, applies in (((64, 64), True), ((1, 65), False)):
        planes = BranchGeometry((1, 2), kappa, 0)
        assert WideLut.applies(replace(two, geometry=planes), ISA) is applies
    for channels, applies in ((128, True), (96, False)):
        assert WideLut.applies(layer_of((2, 2), channels, 128, groups=2), ISA) is applies


@pytest.mark.parametrize("bits", [1, 2, 3])
@pytest.mark.parametrize("block", [TABLE // 2, TABLE, 2 * TABLE])
@pytest.mark.parametrize("groups, per_group, out_channels", [(1, 70, 100), (2, 64, 128)])
def test_weights_hold_every_index_once(groups, per_group, out_channels, block, bits, conv_layer):
    if bits % 2 and block % TABLE:
        pytest.skip("a plane without another beside it takes whole vectors")
    shape = (out_channels, per_group, 2, 3)
    codes = np.random.default_rng(0).integers(0, 2**bits, shape, dtype=np.uint8)
    inverted = np.arange(out_channels) % 3 == 0
    layer = replace(conv_layer(codes, groups=groups), geometry=layer_of((bits, 1), 64).geometry)
    layer = replace(layer, geometry=replace(layer.geometry, groups=groups))
    found = wide_weights(layer, block, inverted)
    mask = np.where(inverted, 2**bits - 1, 0).astype(np.uint8)
    codes = codes ^ mask[:, None, None, None]
    of_group = out_channels // groups
    blocks = -(-of_group // block)
    # Eleven tables to a word, the last one of four channels.
    starts = [w + t for w in range(0, per_group, 64) for t in range(0, 64, 6) if w + t < per_group]
    assert found.shape == (groups * blocks, 2, 3, len(starts), block * bits)
    for o, m, i, j in np.ndindex(out_channels, bits, 2, 3):
        which, channel = divmod(o % of_group, block)
        if m == bits - 1 and bits % 2:  # One of 32 channels, one of the next 32.
            vector, rest = divmod(channel, TABLE)
            lane = m * block + vector * TABLE + rest % 32 * 2 + rest // 32
        else:
            lane = m // 2 * 2 * block + 2 * channel + m % 2
        for t, start in enumerate(starts):
            taken = codes[o, start : min(start + 6, start // 64 * 64 + 64), i, j] >> m & 1
            index = found[o // of_group * blocks + which, i, j, t, lane]
            assert index & (1 << len(taken)) - 1 == taken @ (1 << np.arange(len(taken)))


# Channels of a part of a table, of one, of words with and without a rest; more than a block of
# output channels; strides, dilation, groups; one byte sum a row of taps and one every chunk.
LAYERS = [
    ((1, 1), dict(channels=3, out_channels=64, padding=1)),
    ((1, 2), dict(channels=70, out_channels=100, padding=1)),
    ((2, 2), dict(channels=64, out_channels=64, padding=1, size=(5, 13))),
    ((2, 3), dict(channels=130, out_channels=48, padding=1, stride=2, size=(7, 14))),
    ((3, 2), dict(channels=64, out_channels=64, dilation=2, padding=2, size=(5, 9))),
    ((3, 3), dict(channels=128, out_channels=128, groups=2, padding=1)),
    ((4, 4), dict(channels=6, out_channels=64, kernel=(1, 3))),
    ((4, 1), dict(channels=60, out_channels=64, kernel=(3, 1), batch=2)),
    ((2, 2), dict(channels=32, out_channels=32, padding=1, size=(6, 11))),
    ((4, 2), dict(channels=30, out_channels=24, padding=1)),
    ((2, 1), dict(channels=64, out_channels=96, kernel=1, size=(4, 7))),
]
# Tables that come from the second-level cache: four blocks of one plane share them, or two of two.
FAR = [
    ((1, 2), dict(channels=770, out_channels=256)),
    ((2, 2), dict(channels=800, out_channels=128)),
]


@pytest.mark.sweep(2)
@pytest.mark.parametrize("bits, window", LAYERS, ids=str)
def test_layers_are_exact(bits, window, native_avx512, kinds, random_layer, assert_exact, kernels):
    layers = [
        random_layer(seed, weight(bits[0], 2.0), act(bits[1], 2.0), **window)
        for seed, (weight, act) in enumerate(itertools.product(kinds.values(), kinds.values()))
        if window.get("groups", 1) == 1 or weight is kinds["symmetric"]
    ]
    assert_exact(layers, strategy="lut", target=native_avx512)
    assert {type(product) for product, _ in kernels} == {WideLut}


@pytest.mark.parametrize("bits, window", FAR, ids=str)
def test_blocks_that_share_a_table(
    bits, window, native_avx512, kinds, random_layer, assert_exact, kernels
):
    weight, act = (Encoding.signed(count, 2.0) for count in bits)
    layer = random_layer(0, weight, act, kernel=1, size=(2, 9), **window)
    assert_exact([layer], strategy="lut", target=native_avx512)
    assert [product.blocks_at_once for product, _ in kernels] == [4 // bits[0]]


@pytest.mark.sweep(1)
@pytest.mark.parametrize(
    "bits, channels, kernel, flush",
    [((1, 2), 512, 3, None), ((2, 4), 512, 3, Level.TAP), ((4, 4), 64, 3, Level.ROW)],
)
def test_large_sums(
    bits, channels, kernel, flush, native_avx512, random_layer, assert_exact, kernels
):
    """All bits differ everywhere, so that what could overflow does."""
    weight, act = (Encoding.symmetric(count, 2.0) for count in bits)
    window = dict(channels=channels, out_channels=64, kernel=kernel, size=(3, 9), padding=1)
    layers = [random_layer(0, weight, act, **window) for _ in range(2)]
    layers[1].act_codes[:], layers[1].weight_codes[:] = 2**act.bits - 1, 0
    assert_exact(layers, strategy="lut", target=native_avx512)
    plans = {wide_plan(p.layer, p.is_narrow, p.tile) for p, _ in kernels}
    assert {plan.flush for plan in plans} == {flush}


def test_planes_of_the_largest_coefficients(native_avx512, random_layer, assert_exact, kernels):
    """Two bytes that are full meet in a product of 16 bits, which saturates beyond."""
    kappa = (wide_lut.MAX_COEFFICIENT,) * 2
    weight, act = Encoding(2, 2.0, 64.0, kappa), Encoding.symmetric(2, 2.0)
    layer = random_layer(0, weight, act, channels=84, out_channels=64, size=(1, 3), kernel=1)
    layer.act_codes[:], layer.weight_codes[:] = 3, 0
    assert_exact([layer], strategy="lut", target=native_avx512)
    assert {type(product) for product, _ in kernels} == {WideLut}


def test_rows_of_single_taps_are_divided(native_avx512, random_layer, assert_exact, kernels, kinds):
    act = Encoding.unsigned(2, 2.0)
    layers = [
        random_layer(0, kind(2, 2.0), act, channels=192, out_channels=64, size=size, kernel=1)
        for kind in kinds.values()
        for size in ((14, 14), (1, 197))
    ]
    assert_exact(layers, strategy="lut", target=native_avx512)
    assert {p.layer.input_shape[1:3] for p, _ in kernels} == {(14, 14), (1, 197)}


def test_codes_from_sums(native_avx512, module_of, random_layer, outputs_of, same, kernels):
    cases = []
    for bits, out_channels in itertools.product((1, 2, 4), (64, 100)):
        weight, act = Encoding.symmetric(2, 2.0), Encoding.unsigned(3, 2.0)
        # The last table lacks channels, whose bits count against inverted weights.
        window = dict(channels=68, out_channels=out_channels, size=(3, 13), padding=1)
        layer = random_layer(bits, weight, act, **window)
        cases.append((layer, *steps_of(layer, bits, bits == 2, bits)))
    inputs = [layer.act_codes for layer, *_ in cases]
    outputs = outputs_of(
        thresholded(cases, module_of), inputs, strategy="lut", target=native_avx512
    )
    assert all(same(y, codes_of(*case)) for case, y in zip(cases, outputs))
    assert {type(product) for product, _ in kernels} == {WideLut}
