"""Weights as signed bytes, and products that could saturate."""

from dataclasses import replace

import numpy as np
import pytest

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.kernel.nest.tile import Tile
from tvm_bitenc.kernel.product.int8 import Int8, byte_weights
from tvm_bitenc.schedule import avx2, avx512
from tvm_bitenc.target import load_target


@pytest.fixture
def layer_of(conv_layer):
    """A layer with the ends of its weights among them."""

    def make(bits, offset=0, act_bits=2):
        codes = np.random.default_rng(bits).integers(0, 2**bits, (4, 5, 3, 3), dtype=np.uint8)
        codes[:, 0, 0, 0], codes[:, 0, 0, 1] = 0, 2**bits - 1
        return conv_layer(codes, offset, act_bits=act_bits, weight_bits=bits, act_offset=3)

    return make


@pytest.mark.parametrize("offset", [0, 1, -1])
@pytest.mark.parametrize("bits", range(1, 9))
def test_byte_weights_are_the_integers(bits, offset, layer_of):
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


def test_weights_too_large_for_bytes(layer_of):
    assert byte_weights(layer_of(8, 200), 127) is None


AVX2 = avx2.isa_of(load_target("x86-64-v3"))
PLAIN_AVX512 = avx512.isa_of(load_target("x86-64-v4"))
ZEN5 = avx512.isa_of(load_target("znver5"))


@pytest.mark.parametrize("isa", [AVX2, PLAIN_AVX512], ids=lambda isa: isa.name)
@pytest.mark.parametrize("act_bits", range(1, 9))
@pytest.mark.parametrize("bits", range(1, 9))
def test_pairs_of_products_fit_16_bits_where_they_are_summed_there(bits, act_bits, isa, layer_of):
    product = Int8(layer_of(bits, act_bits=act_bits), isa, Tile(1, 1))
    largest = np.abs(product.weights.values.astype(np.int64)).max()
    assert (product.method == "bytes") == (2 * (2**act_bits - 1) * largest <= 2**15 - 1)
    assert product.method in ("bytes", "words")


def test_methods(layer_of):
    assert Int8(layer_of(2, act_bits=2), AVX2, Tile(1, 1)).method == "bytes"
    assert Int8(layer_of(8, act_bits=8), AVX2, Tile(1, 1)).method == "words"
    assert Int8(layer_of(8, act_bits=8), ZEN5, Tile(1, 1)).method == "dot"


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


# So many that the second-level cache doesn't hold them, some channels beyond whole vectors.
MANY = dict(channels=1100, out_channels=1000, kernel=1)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("kind", ["symmetric", "signed", "unsigned"])
@pytest.mark.parametrize("bits", range(1, 6))
def test_weights_that_share_a_byte(bits, kind, native_avx512, random_layer, assert_exact, kernels):
    weight, act = getattr(Encoding, kind)(bits, 2.0), Encoding.unsigned(8, 2.0)
    layers = [random_layer(n, weight, act, size=(1, n), **MANY) for n in (1, 3)]
    layers[0].act_codes[:] = 255
    assert_exact(layers, strategy="int8", target=native_avx512)
    needed = bits + (kind == "unsigned")  # Levels from 0 up have no sign to save.
    expected = {1: 8, 2: 4, 3: 2, 4: 2}.get(needed, 1)
    assert [product.per_byte for product, _ in kernels] == [expected] * 2


def test_which_weights_share_a_byte(layer_of):
    many = replace(layer_of(2), weight_codes=np.zeros((1024, 1024, 1, 1), np.uint8))
    many = replace(many, weight_offset=np.zeros(1024, int), input_shape=(1, 2, 2, 1024))
    assert Int8(many, ZEN5, Tile(1, 1)).per_byte == 4
    assert Int8(many, PLAIN_AVX512, Tile(1, 1)).per_byte == 1  # No instruction takes them apart.
    assert Int8(replace(many, input_shape=(1, 3, 2, 1024)), ZEN5, Tile(1, 1)).per_byte == 1
    few = replace(many, weight_codes=many.weight_codes[:, :512], input_shape=(1, 2, 2, 512))
    assert Int8(few, ZEN5, Tile(1, 1)).per_byte == 1
