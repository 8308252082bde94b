"""Weights of depthwise layers as bytes, and which layers take dot products of four taps.

`test_depthwise` holds the kernels to the integers of `tvm_bitenc.encoding`.
"""

import numpy as np
import pytest

from tvm_bitenc.branches import BranchGeometry
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.kernel.product.depthwise import Depthwise
from tvm_bitenc.kernel.product.dot_depthwise import MAX_PARTS, DotDepthwise, byte_parts
from tvm_bitenc.layer import ConvLayer
from tvm_bitenc.schedule import avx2, avx512
from tvm_bitenc.target import load_target

CHANNELS = 66


def layer_of(weight_bits, offset, kernel=(3, 3), act_coefficients=(1, 2)):
    """A depthwise layer with every code that its weights may have, the least and largest too."""
    kappa = tuple(2**b for b in range(weight_bits))
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2**weight_bits, (CHANNELS, 1, *kernel), dtype=np.uint8)
    codes[0, 0, 0, 0], codes[1, 0, 0, 0] = 0, 2**weight_bits - 1
    geometry = BranchGeometry(act_coefficients, kappa, 0, groups=CHANNELS)
    return ConvLayer("conv", (1, 9, 9, CHANNELS), codes, np.full(CHANNELS, offset), geometry)


@pytest.mark.parametrize(
    "bits, offset, factor, parts",
    [(1, 0, 1, 1), (7, 0, 1, 1), (8, -1, 2, 1), (8, 0, 1, 3), (8, 1, 1, 3), (8, 255, 1, 5)],
)
def test_parts_add_up_to_the_weights(bits, offset, factor, parts):
    layer = layer_of(bits, offset)
    found, values = byte_parts(layer)
    assert np.array_equal(found * values.astype(int).sum(axis=0), layer.weight_integers)
    assert values.dtype == np.int8 and (found, len(values)) == (factor, parts)


def test_which_layers_have_dot_products():
    with_dot, without = (avx512.isa_of(load_target(name)) for name in ("znver4", "x86-64-v4"))
    layer = layer_of(8, 0)
    assert DotDepthwise.applies(layer, with_dot) and Depthwise.applies(layer, with_dot)
    assert not DotDepthwise.applies(layer, without)
    assert not DotDepthwise.applies(layer, avx2.isa_of(load_target("x86-64-v3")))
    assert not DotDepthwise.applies(layer_of(8, 255), with_dot)  # More than MAX_PARTS.
    assert len(byte_parts(layer_of(8, 255))[1]) > MAX_PARTS
    assert not DotDepthwise.applies(layer_of(1, 0, (8, 8)), with_dot)
    assert not DotDepthwise.applies(layer_of(1, 0, act_coefficients=(200, 100)), with_dot)


@pytest.mark.parametrize("kernel", [(3, 3), (4, 1), (5, 5), (1, 3)], ids=str)
def test_largest_products_are_exact(kernel, native_avx512, kernels, random_layer, assert_exact):
    """Codes and weights at their ends, in windows of one row of four taps, more, and fewer."""
    pair = Encoding.symmetric(8, 2.0), Encoding.unsigned(8, 2.0)
    window = dict(channels=CHANNELS, out_channels=CHANNELS, groups=CHANNELS, padding=1)
    layers = [random_layer(seed, *pair, kernel=kernel, size=(6, 7), **window) for seed in range(2)]
    layers[1].act_codes[:] = 255
    layers[1].weight_codes[:] = np.arange(CHANNELS).reshape(-1, 1, 1, 1) % 2 * 255
    assert_exact(layers, target=native_avx512)
    assert {type(product) for product, _ in kernels} == {DotDepthwise}
