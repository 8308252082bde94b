"""Layers whose branches have a matrix of coefficients, under every strategy."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tvm import relax

from tests.kernel.cases import (
    DIAGONAL,
    OF_BITS,
    codes_of,
    of_branches,
    steps_of,
    thresholded,
    with_matrices,
)
from tvm_bitenc.bounds import accumulator_bound
from tvm_bitenc.branches import accumulator_range, outer
from tvm_bitenc.encoding import Encoding, planes
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.kernel.product.byte_xnor import ByteXnor
from tvm_bitenc.kernel.product.depthwise import Depthwise
from tvm_bitenc.kernel.product.int8 import Int8
from tvm_bitenc.kernel.product.lut import Lut
from tvm_bitenc.kernel.product.xnor import Xnor
from tvm_bitenc.layer import ConvLayer
from tvm_bitenc.op import branch_conv2d
from tvm_bitenc.op.branch import geometry_of
from tvm_bitenc.reference import conv2d
from tvm_bitenc.schedule import avx2, neon, strategy_costs
from tvm_bitenc.strategy import STRATEGIES
from tvm_bitenc.target import load_target
from tvm_bitenc.transform import no_lowering

BITS = 8
SIGNS = Encoding.symmetric(BITS)


@pytest.fixture(scope="session")
def layers(random_layer):
    """See `with_matrices`."""
    return with_matrices(random_layer)


@pytest.fixture(scope="session")
def assert_sums(module_of, outputs_of, same):
    """``assert_sums(layers, **options of build)``: accumulators of all against the reference."""

    def check(layers, **options):
        codes = [layer.act_codes for layer in layers]
        pairs = zip(outputs_of(of_branches(layers, module_of), codes, **options), layers)
        assert not [layer.name for y, layer in pairs if not same(y, layer.accumulators())]

    return check


@pytest.mark.parametrize("window", [dict(padding=1), dict(stride=2, groups=2)], ids=str)
def test_the_reference_sums_every_pair_of_planes(window, random_layer):
    """Written out: one product of signs after another, and the terms of the offsets."""
    weight, act = Encoding(2, 1.0, 0.5), Encoding(3, 1.0, 1.5)
    matrix = np.array([[1, 0, -5], [7, 2, 3]])
    layer = random_layer(0, weight, act, **window)
    one = Encoding.symmetric(1)
    total = np.zeros((), np.int64)
    for m, k in np.ndindex(matrix.shape):
        sides = (layer.act_codes, 3, k), (layer.weight_codes, 2, m)
        bits = [(planes(codes, bits)[i] > 0).astype(np.uint8) for codes, bits, i in sides]
        total = total + matrix[m, k] * conv2d(bits[0], one, bits[1], one, **window)
    plain = conv2d(layer.act_codes, act, layer.weight_codes, weight, **window)
    sums = [Encoding(2, 1.0, 1.5), Encoding(3, 1.0, 3.5)]  # Without offsets.
    plain -= conv2d(layer.act_codes, sums[1], layer.weight_codes, sums[0], **window)
    found = conv2d(layer.act_codes, act, layer.weight_codes, weight, **window, branches=matrix)
    assert np.array_equal(found, total + plain)


def test_bit_planes_of_an_image(random_layer):
    """Sum over i of 2^i conv(plane i, weights i), twice; equal weights are those of one bit."""
    layer = random_layer(0, SIGNS, OF_BITS, channels=3, padding=1, branches=DIAGONAL)
    bit, sign = Encoding.unsigned(1), Encoding.symmetric(1)
    sums = 0
    for i in range(BITS):
        plane, weights = (codes >> i & 1 for codes in (layer.act_codes, layer.weight_codes))
        sums = sums + 2**i * conv2d(plane, bit, weights, sign, padding=1)
    assert np.array_equal(layer.accumulators(), sums)
    ones = (layer.weight_codes & 1) * np.uint8(255)
    plain = conv2d(layer.act_codes, Encoding.unsigned(8), ones & 1, sign, padding=1)
    window = dict(padding=1, branches=DIAGONAL)
    assert np.array_equal(conv2d(layer.act_codes, OF_BITS, ones, SIGNS, **window), plain)


def test_a_product_of_coefficients_is_no_matrix(random_layer):
    weight, act = Encoding.symmetric(2), Encoding.unsigned(3)
    layer = random_layer(0, weight, act)
    call = branch_conv2d(_codes(layer), act, layer.weight_codes, weight)
    same = branch_conv2d(
        _codes(layer), act, layer.weight_codes, weight, branches=outer((1, 2), (1, 2, 4))
    )
    assert "branches" not in same.attrs and geometry_of(same).is_product
    assert dict(call.attrs.items()).keys() == dict(same.attrs.items()).keys()


def _codes(layer):
    return relax.Var("codes", relax.TensorType(layer.act_codes.shape, "uint8"))


@pytest.mark.parametrize(
    "matrix, cause",
    [
        (np.eye(2), r"of shape \(2, 2\), not \(2, 3\)"),
        (np.full((2, 3), 0.5), "other numbers than integers"),
        (np.zeros((2, 3)), "is zero"),
    ],
)
def test_matrices_that_are_refused(matrix, cause, random_layer):
    weight, act = Encoding.symmetric(2), Encoding.unsigned(3)
    layer = random_layer(0, weight, act)
    with pytest.raises(UnsupportedError, match=f"conv2d of layer 'first'.*{cause}"):
        branch_conv2d(
            _codes(layer), act, layer.weight_codes, weight, branches=matrix, layer="first"
        )


def test_the_op_is_the_reference(layers, assert_sums):
    assert_sums(layers, pipeline=no_lowering)


@pytest.mark.sweep(1)
@pytest.mark.parametrize("target", ["native", "x86-64-v3"])
@pytest.mark.parametrize("strategy", ["auto", *STRATEGIES])
def test_every_strategy_is_exact(strategy, target, layers, assert_sums):
    assert_sums(layers, strategy=strategy, target=target)


def test_codes_are_exact(layers, module_of, outputs_of, same):
    """Thresholds behind sums of branches, compared and searched."""
    cases = [
        (layer, *steps_of(layer, bits, is_even, seed))
        for seed, (layer, bits, is_even) in enumerate(zip(layers, (2, 4, 1, 3), (0, 1, 0, 0)))
    ]
    codes = [layer.act_codes for layer, *_ in cases]
    outputs = outputs_of(thresholded(cases, module_of), codes)
    assert not [case[0].name for case, y in zip(cases, outputs) if not same(y, codes_of(*case))]


def test_kernels_take_matrices_without_subtraction(layers):
    """Counts and tables of x86 vectors and of ARM; products of integers decline."""
    target = load_target("x86-64-v3")
    found = {layer.name: strategy_costs(_static(layer), target).keys() for layer in layers}
    assert found["squares"] == found["bit planes"] == {"xnor", "lut"}
    isa, of_arm = avx2.isa_of(target), neon.isa_of(load_target("cortex-a53"))
    for layer in layers:
        is_whole, static = layer.name not in ("subtracted", "depthwise"), _static(layer)
        assert Lut.applies(static, isa) == Xnor.applies(static, isa) == is_whole
        assert ByteXnor.applies(static, of_arm) == is_whole
        assert not any(x.applies(static, isa) for x in (Int8, Depthwise))


def _static(layer):
    batch, channels, height, width = layer.act_codes.shape
    offset = np.broadcast_to(layer.weight.offset, len(layer.weight_codes))
    shape = (batch, height, width, channels)
    return ConvLayer(layer.name, shape, layer.weight_codes, offset, layer.geometry)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 99),
    bits=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    offsets=st.tuples(st.integers(-3, 9), st.integers(-3, 9)),
    largest=st.integers(1, 20),
    window=st.sampled_from([dict(padding=1), dict(padding=(2, 0, 1, 1), stride=2), dict(groups=2)]),
)
def test_ranges_and_bounds_hold_any_accumulator(random_layer, seed, bits, offsets, largest, window):
    matrix = np.random.default_rng(seed).integers(-largest, largest + 1, bits)
    weight, act = (Encoding(b, 1.0, z / 2) for b, z in zip(bits, offsets))
    layer = random_layer(seed, weight, act, **window, branches=matrix)
    acc = np.moveaxis(layer.accumulators(), 1, 0).reshape(len(layer.weight_codes), -1)
    offset = np.broadcast_to(weight.offset, len(acc))
    geometry = replace(layer.geometry, branches=tuple(map(tuple, matrix.tolist())))
    low, high = accumulator_range(layer.weight_codes, offset, geometry)
    assert np.all(low <= acc.min(axis=1)) and np.all(acc.max(axis=1) <= high)
    bound = accumulator_bound(layer.weight_codes, weight, act, matrix)
    assert max(-low.min(), high.max()) <= bound


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 999),
    bits=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    offsets=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    channels=st.integers(1, 130),
    least=st.sampled_from([-4, 0]),
    strategy=st.sampled_from(["auto", *STRATEGIES]),
    window=st.sampled_from([dict(padding=1), dict(padding=(2, 0, 1, 1), stride=2), dict(kernel=1)]),
)
def test_any_matrix(
    random_layer, assert_sums, seed, bits, offsets, channels, least, strategy, window
):
    matrix = np.random.default_rng(seed).integers(least, 9, bits)
    matrix.flat[0] = 1
    weight, act = (Encoding(b, 1.0, z / 2) for b, z in zip(bits, offsets))
    layer = random_layer(seed, weight, act, channels=channels, **window, branches=matrix)
    assert_sums([layer], strategy=strategy)
