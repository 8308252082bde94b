"""Kernels against the integers of `tvm_bitenc.encoding`, on all instruction sets at hand."""

import itertools

import numpy as np
import pytest

from tests.kernel.cases import WIDTHS, A, W, codes_of, layers_of, steps_of, thresholded, unusual
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.op import branch_conv2d, threshold
from tvm_bitenc.schedule import parallel, vector
from tvm_bitenc.strategy import STRATEGIES

SLOW = pytest.mark.slow  # Compiling many kernels takes minutes.

# A border takes LLVM several times as long, the longer the more bits.
BITS_AT_BORDERS = ((1, 1), (2, 3), (3, 5), (5, 2))
BITS_OF_ONE_PIXEL = ((1, 8), (4, 4), (6, 7), (7, 1), (8, 4))
HAVE_BORDERS = ((2, True), (7, True), (3, False))  # (output bits, whether thresholds are even)


@pytest.fixture
def epilogues(monkeypatch):
    """Names of the epilogues that kernels were made with."""
    found, choose = [], vector._epilogue

    def spy(layer, product):
        epilogue = choose(layer, product)
        found.append(type(epilogue).__name__)
        return epilogue

    monkeypatch.setattr(vector, "_epilogue", spy)
    return found


@pytest.mark.sweep(2)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_some_bits(strategy, target, random_layer, kinds, assert_exact, epilogues):
    layers = [
        *layers_of(BITS_AT_BORDERS, random_layer, kinds),
        *layers_of(BITS_OF_ONE_PIXEL, random_layer, kinds, kernel=1),
    ]
    assert_exact(layers, strategy=strategy, target=target)
    assert "Floats" in epilogues


@pytest.mark.sweep(1)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_avx512_without_popcount_and_dot_products(
    strategy, plain_avx512, random_layer, kinds, assert_exact
):
    layers = [
        *layers_of([(1, 1), (2, 3)], random_layer, kinds),
        *layers_of([(8, 8)], random_layer, kinds, kernel=1),
    ]
    assert_exact(layers, strategy=strategy, target=plain_avx512)


@SLOW
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("target", ["x86-64-v3"], indirect=True)
def test_all_bits(strategy, target, random_layer, kinds, assert_exact):
    """Of one pixel: what borders add is tried on some bits, and takes LLVM seven times as long.

    `tests.test_exactness` has all bits on this machine's own instruction set.
    """
    bits = itertools.product(range(1, 9), range(1, 9))
    layers = layers_of(bits, random_layer, kinds, kernel=1)
    assert_exact(layers, strategy=strategy, target=target)


@SLOW
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_unusual_layers(strategy, target, random_layer, assert_exact):
    assert_exact(unusual(random_layer), strategy=strategy, target=target)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_bit_differs(strategy, target, random_layer, assert_exact):
    """Counts at their highest; where planes weigh the same, they are counted together."""
    layers = []
    for pairs in ((1, 1), (8, 8), (5, 7)):
        weight, act = (Encoding(bits, 2.0, bits / 2, (1,) * bits) for bits in pairs)
        layer = random_layer(0, weight, act, channels=130, kernel=1, size=(1, 7))
        layer.act_codes[:], layer.weight_codes[:] = 0, 2**weight.bits - 1
        layer.act_codes[..., 3] = 2**act.bits - 1
        layers.append(layer)
    assert_exact(layers, strategy=strategy, target=target)


@SLOW
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_threads(strategy, threads, target, random_layer, assert_exact):
    window = dict(channels=64, out_channels=64, size=(14, 14), padding=1)
    layer = random_layer(0, W, A, **window)
    assert parallel.MIN_PARALLEL_MACS <= 14 * 14 * 64 * 64 * 9
    assert_exact([layer], strategy=strategy, target=target, threads=threads)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_thresholds_of_all_out_bits(
    strategy, target, random_layer, module_of, outputs_of, same, epilogues
):
    cases = []
    for bits, is_even in [*((b, True) for b in range(1, 9)), (3, False), (8, False)]:
        out_channels, width = (66, 8, 64)[bits % 3], WIDTHS[bits % 2]
        size = dict(channels=17, out_channels=out_channels, size=(3, width))
        has_border = (bits, is_even) in HAVE_BORDERS
        size |= dict(padding=1) if has_border else dict(kernel=1)
        weight = Encoding.signed(2, 2.0) if bits % 2 else Encoding.symmetric(2, 2.0)
        layer = random_layer(bits, weight, A, **size)
        cases.append((layer, *steps_of(layer, bits, is_even, bits)))
    inputs = [layer.act_codes for layer, *_ in cases]
    mod = thresholded(cases, module_of)
    outputs = outputs_of(mod, inputs, strategy=strategy, target=target)
    wrong = [i for i, (case, y) in enumerate(zip(cases, outputs)) if not same(y, codes_of(*case))]
    assert not wrong
    assert all(len(np.unique(y)) > 1 for y in outputs)
    assert {"ComparedPlanes", "AffinePlanes", "SearchedPlanes"} <= set(epilogues)


@SLOW
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_thresholds_of_groups(
    strategy, target, random_layer, module_of, outputs_of, same, epilogues
):
    """Where bits of two groups would share an integer, a plainer kernel takes over."""
    cases, window = [], dict(size=(3, 7), padding=1)
    for channels, groups, out_channels in ((128, 2, 128), (68, 4, 12)):
        size = dict(channels=channels, groups=groups, out_channels=out_channels, **window)
        layer = random_layer(groups, W, A, **size)
        cases.append((layer, *steps_of(layer, 2, True, groups)))
    outputs = outputs_of(
        thresholded(cases, module_of),
        [layer.act_codes for layer, *_ in cases],
        strategy=strategy,
        target=target,
    )
    assert all(same(y, codes_of(*case)) for case, y in zip(cases, outputs))
    assert "ComparedPlanes" in epilogues


def test_accumulators_that_are_returned(target, random_layer, module_of, outputs_of, epilogues):
    layer = random_layer(0, W, A, channels=17, out_channels=12, padding=1)

    def body(builder, x):
        call = branch_conv2d(x, layer.act, layer.weight_codes, layer.weight, padding=(1, 1, 1, 1))
        return builder.emit(call)

    mod = module_of([layer.act_codes.shape], body, "uint8")
    (acc,) = outputs_of(mod, [layer.act_codes], target=target)
    assert acc.dtype == np.int32 and np.array_equal(acc, layer.accumulators())
    assert set(epilogues) == {"Integers"}


@SLOW
def test_chain(target, random_layer, module_of, outputs_of, same, epilogues):
    """Planes go from layer to layer: each reads codes that the one before it wrote."""
    first = random_layer(0, W, A, channels=17, out_channels=66, size=(5, 7), padding=1)
    cases, codes = [], first.act_codes
    for i, out_bits in enumerate((1, 3, 5, 8)):
        act = Encoding.unsigned((3, 1, 3, 5)[i], 2.0)
        drawn = random_layer(i, W, act, channels=codes.shape[1], out_channels=66, padding=1)
        layer = type(drawn)(act, W, codes, drawn.weight_codes, dict(padding=1))
        cases.append((layer, *steps_of(layer, out_bits, True, i)))
        codes = codes_of(*cases[-1])

    def body(builder, x):
        for layer, limits, direction in cases:
            acc = branch_conv2d(
                x, layer.act, layer.weight_codes, layer.weight, padding=(1, 1, 1, 1)
            )
            x = builder.emit(threshold(builder.emit(acc), limits, direction))
        return x

    mod = module_of([first.act_codes.shape], body, "uint8")
    for strategy in STRATEGIES:
        (y,) = outputs_of(mod, [first.act_codes], strategy=strategy, target=target)
        assert same(y, codes)
    assert {"ComparedPlanes", "AffinePlanes"} <= set(epilogues)
