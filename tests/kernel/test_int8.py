"""Weights as signed bytes, and products that could saturate."""

import numpy as np
import pytest

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.kernel.int8 import byte_weights
from tvm_bitenc.te.conv_layer import BranchGeometry, ConvLayer


def layer_of(bits, offset):
    codes = np.random.default_rng(bits).integers(0, 2**bits, (4, 5, 3, 3), dtype=np.uint8)
    codes[:, 0, 0, 0], codes[:, 0, 0, 1] = 0, 2**bits - 1
    geometry = BranchGeometry((1, 2), tuple(2**b for b in range(bits)), 3)
    return ConvLayer("conv", (1, 4, 4, 5), codes, np.full(4, offset, np.int32), geometry)


@pytest.mark.parametrize("offset", [0, 1, -1])
@pytest.mark.parametrize("bits", range(1, 9))
def test_byte_weights_are_the_integers(bits, offset):
    layer = layer_of(bits, offset)
    found = byte_weights(layer, 127)
    if (bits, offset) == (8, 1):  # Up to 256: 128 after halving.
        assert found is None
        return
    assert found.values.dtype == np.int8
    shift = found.shift[:, None, None, None]
    assert np.array_equal(
        found.factor * found.values.astype(np.int64) + shift, layer.weight_integers
    )


def test_weights_too_large_for_bytes():
    assert byte_weights(layer_of(8, 200), 127) is None


@pytest.mark.parametrize("kind", ["symmetric", "unsigned", "signed"])
def test_extremes_do_not_saturate(kind, target, kinds, random_layer, assert_exact):
    layers = []
    for i, code in enumerate((0, 255)):
        layer = random_layer(
            i, kinds[kind](8, 2.0), Encoding.unsigned(8, 2.0), channels=68, size=(3, 7), padding=1
        )
        layer.act_codes[:], layer.weight_codes[:] = 255, code
        layer.weight_codes[1, ::2] = 255 - code
        layers.append(layer)
    assert_exact(layers, strategy="int8", target=target)
