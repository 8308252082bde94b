"""Layers whose branches have a matrix of coefficients, under every strategy."""

import numpy as np
import pytest

from tvm_bitenc.branches import outer
from tvm_bitenc.encoding import Encoding, planes
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.op import branch_conv2d
from tvm_bitenc.op.branch import geometry_of
from tvm_bitenc.reference import conv2d, pads, pair
from tvm_bitenc.strategy import STRATEGIES
from tvm_bitenc.transform import no_lowering

BITS = 8
DIAGONAL = np.diag(2 ** np.arange(BITS))
OF_BITS = Encoding(BITS, 1.0, 127)  # Each plane counts as 0 and 1: an offset of 1.
SIGNS = Encoding.symmetric(BITS)
SQUARES = np.array([[1, 2, 0], [2, 4, 0], [0, 0, 3]])  # Some planes take three counts.
NEGATIVE = np.array([[1, -2], [0, 4]])


@pytest.fixture(scope="session")
def matrix_layers(random_layer):
    """Layers with branch matrices, by what is unusual about them."""
    w2, w3, a2, a3 = Encoding.symmetric(2), Encoding.symmetric(3), *map(Encoding.unsigned, (2, 3))
    zeros = Encoding(3, 1.0, np.arange(16) % 5 / 2)
    options = {
        "bit planes of an image": (SIGNS, OF_BITS, DIAGONAL, dict(channels=3, padding=1, stride=2)),
        "squares": (w3, a3, SQUARES, dict(channels=65, padding=1)),
        "weight offsets": (zeros, a3, SQUARES, dict(channels=17, padding=(0, 1, 2, 3))),
        "whole words": (w3, a3, SQUARES, dict(channels=128, kernel=1)),
        "a row of zeros": (w2, a2, np.array([[0, 0], [1, 3]]), dict(channels=64, padding=1)),
        "rows with a common factor": (w2, a2, np.array([[1, 2], [3, 6]]), dict(channels=8)),
        "groups": (w2, a2, np.array([[1, 2], [2, 3]]), dict(channels=128, groups=2, padding=1)),
        "depthwise": (SIGNS, OF_BITS, DIAGONAL, dict(channels=16, groups=16, padding=1)),
        "subtracted": (w2, a2, NEGATIVE, dict(channels=9, dilation=2, padding=2)),
    }
    return {
        name: random_layer(
            seed, weight, act, out_channels=16, size=(5, 7), name=name, branches=matrix, **window
        )
        for seed, (name, (weight, act, matrix, window)) in enumerate(options.items())
    }


def emitted(builder, codes, layer):
    """The layer's op on codes."""
    return builder.emit(
        branch_conv2d(
            codes,
            layer.act,
            layer.weight_codes,
            layer.weight,
            strides=pair(layer.window.get("stride", 1)),
            padding=pads(layer.window.get("padding", 0)),
            dilation=pair(layer.window.get("dilation", 1)),
            groups=layer.window.get("groups", 1),
            branches=layer.window["branches"],
            layer=layer.name,
        )
    )


@pytest.fixture(scope="session")
def assert_sums(module_of, outputs_of, same):
    """``assert_sums(layers, **options of build)``: accumulators of all against the reference."""

    def check(layers, **options):
        codes = [layer.act_codes for layer in layers]
        mod = module_of(
            [c.shape for c in codes],
            lambda builder, *xs: [emitted(builder, x, layer) for x, layer in zip(xs, layers)],
            "uint8",
        )
        pairs = zip(outputs_of(mod, codes, **options), layers)
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
    from tvm import relax

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


def test_the_op_is_the_reference(matrix_layers, assert_sums):
    assert_sums(list(matrix_layers.values()), pipeline=no_lowering)


@pytest.mark.sweep(1)
@pytest.mark.parametrize("target", ["native", "x86-64-v3"])
@pytest.mark.parametrize("strategy", ["auto", *STRATEGIES])
def test_every_strategy_is_exact(strategy, target, matrix_layers, assert_sums):
    assert_sums(list(matrix_layers.values()), strategy=strategy, target=target)
