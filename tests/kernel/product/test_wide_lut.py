"""Tables of six activations: indices of weights, plans of loops, and whole kernels."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from tests.kernel.cases import codes_of, steps_of, thresholded
from tvm_bitenc.branches import BranchGeometry
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.kernel.nest.tile import Tile
from tvm_bitenc.kernel.product import wide_lut
from tvm_bitenc.kernel.product.lut import Lut
from tvm_bitenc.kernel.product.lut_plan import MAX_ENTRY_SUM, MAX_PAIR_SUM, Level
from tvm_bitenc.kernel.product.wide_lut import TABLE, WideLut, tables_of, wide_plan, wide_weights
from tvm_bitenc.layer import ConvLayer
from tvm_bitenc.schedule import avx512, x86
from tvm_bitenc.target import load_target

ISA = avx512.isa_of(load_target("znver4"))
TILE = Tile(7, 1)
MOST_CHANNELS = 1024


def layer_of(bits, channels, out_channels=64, kernel=(3, 3), size=14, **geometry):
    """A layer of some bits, whose codes are all 0."""
    kappas = [tuple(2**b for b in range(count)) for count in bits]
    codes = np.zeros((out_channels, channels // geometry.get("groups", 1), *kernel), np.uint8)
    planes = BranchGeometry(kappas[1], kappas[0], 0, **geometry)
    return ConvLayer("conv", (1, size, size, channels), codes, np.zeros(out_channels, int), planes)


def test_which_layers_have_wide_tables():
    two = layer_of((2, 2), 64)
    assert x86.FAMILY.product_of(two.with_strategy("lut"), ISA)[1] is WideLut
    plain = avx512.isa_of(load_target("x86-64-v4"))
    assert x86.FAMILY.product_of(two.with_strategy("lut"), plain)[1] is Lut
    assert not plain.has_wide_lookup and not WideLut.applies(two, plain)
    # Sums that registers or bytes don't hold; half of a vector without a channel; split tables.
    for bits in ((5, 1), (1, 5)):
        assert not WideLut.applies(layer_of(bits, 64), ISA)
    for out_channels, applies in ((32, False), (43, True), (80, False), (96, True)):
        assert WideLut.applies(layer_of((2, 2), 64, out_channels), ISA) is applies
    for kappa, applies in (((64, 64), True), ((1, 65), False)):
        planes = BranchGeometry((1, 2), kappa, 0)
        assert WideLut.applies(replace(two, geometry=planes), ISA) is applies
    for channels, applies in ((128, True), (96, False)):
        assert WideLut.applies(layer_of((2, 2), channels, 128, groups=2), ISA) is applies


@pytest.mark.parametrize("vectors", [1, 2])
@pytest.mark.parametrize("groups, per_group, out_channels", [(1, 70, 100), (2, 64, 128)])
def test_weights_hold_every_index_once(groups, per_group, out_channels, vectors, conv_layer):
    shape = (out_channels, per_group, 2, 3)
    codes = np.random.default_rng(0).integers(0, 4, shape, dtype=np.uint8)
    inverted = np.arange(out_channels) % 3 == 0
    layer, block = conv_layer(codes, groups=groups), vectors * TABLE
    found = wide_weights(layer, block, inverted)
    codes = codes ^ np.where(inverted, 3, 0).astype(np.uint8)[:, None, None, None]
    of_group = out_channels // groups
    blocks = -(-of_group // block)
    # Eleven tables to a word, the last one of four channels.
    starts = [w + t for w in range(0, per_group, 64) for t in range(0, 64, 6) if w + t < per_group]
    assert found.shape == (groups * blocks, 2, 3, len(starts), vectors, 2, TABLE)
    for o, m, i, j in np.ndindex(out_channels, 2, 2, 3):
        which, channel = divmod(o % of_group, block)
        half, rest = divmod(channel, block // 2)
        v, rest = divmod(rest, TABLE // 2)
        lane = rest // 8 * 16 + half * 8 + rest % 8
        for t, start in enumerate(starts):
            bits = codes[o, start : min(start + 6, start // 64 * 64 + 64), i, j] >> m & 1
            index = found[o // of_group * blocks + which, i, j, t, v, m, lane]
            mask = (1 << len(bits)) - 1
            assert index & mask == bits @ (1 << np.arange(len(bits)))


def until(level, plan, per_chunk):
    """Look-ups that are summed until the end of a loop."""
    of_tap = plan.chunks * plan.size + plan.rest
    rows, columns = plan.window
    taps = {Level.TAP: 1, Level.ROW: columns, Level.PLANE: rows * columns}
    return per_chunk if level is Level.CHUNK else of_tap * taps[level]


@pytest.mark.parametrize("unroll", [0, 4])
@pytest.mark.parametrize("bits", [*itertools.product(range(1, 5), range(1, 5))])
def test_sums_are_widened_before_they_overflow(bits, unroll):
    tried = set()
    for channels in (3, 64, 130, 384, MOST_CHANNELS):
        layer = layer_of(bits, channels)
        entry = wide_lut.largest_entry(layer)
        if not WideLut.applies(layer, ISA):
            assert tables_of(layer) * entry * sum(layer.geometry.weight_coefficients) > MAX_PAIR_SUM
            continue
        product = WideLut(layer, ISA, TILE)
        plan = wide_plan(layer, product.is_narrow, Tile(7, 1, unroll=unroll))
        taps = layer.kernel_size[0] * layer.kernel_size[1]
        of_tap = plan.chunks * plan.size + plan.rest
        assert of_tap * plan.window[0] * plan.window[1] == taps * tables_of(layer)
        assert plan.size <= (unroll or wide_lut.MAX_UNROLL)
        assert until(plan.widen, plan, plan.size) * entry <= MAX_ENTRY_SUM
        term = entry * sum(layer.geometry.weight_coefficients)
        if plan.flush is None:
            assert product.terms.high <= MAX_PAIR_SUM
        else:
            assert until(plan.flush, plan, None) * term <= MAX_PAIR_SUM
        assert not (plan.is_blocked and plan.flush is Level.TAP)
        tried.add(plan.widen)
    assert Level.CHUNK in tried


def test_far_tables_are_looked_into_chunk_by_chunk():
    near, far = (layer_of((1, 2), channels, size=7) for channels in (64, 512))
    assert not wide_plan(near, True, TILE).is_blocked and wide_plan(far, True, TILE).is_blocked


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
