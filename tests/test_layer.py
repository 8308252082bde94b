"""What is constant in a convolution: sizes, border classes, and the constants of the kernels."""

import numpy as np
import pytest

from tvm_bitenc.encoding import Encoding, pack, unpack
from tvm_bitenc.layer import ConvLayer
from tvm_bitenc.te.conv2d import xnor_weights


def conv_layer(layer) -> ConvLayer:
    batch, channels, height, width = layer.act_codes.shape
    offset = np.broadcast_to(layer.weight.offset, layer.weight_codes.shape[:1])
    shape = (batch, height, width, channels)
    return ConvLayer("layer", shape, layer.weight_codes, offset, layer.geometry)


WINDOWS = [
    dict(padding=1),
    dict(padding=(2, 0, 1, 3), stride=(2, 1), kernel=(3, 2)),
    dict(padding=2, dilation=(1, 2), groups=2),
    dict(padding=4, size=(1, 2)),
]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_sizes_are_those_of_the_reference(window, random_layer):
    layer = random_layer(0, Encoding.symmetric(2), Encoding.unsigned(2), batch=2, **window)
    static, acc = conv_layer(layer), layer.accumulators()
    assert static.output_size == acc.shape[2:]
    assert static.taps == layer.weight_codes[0].size
    assert static.macs == acc.size * layer.weight_codes[0].size
    assert (static.weight_bits, static.act_bits, static.out_bits) == (2, 2, 32)


@pytest.mark.parametrize("act", [Encoding.symmetric(2), Encoding.ternary(), Encoding(2, 1.0, 9.5)])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_border_is_the_accumulator_of_no_differing_bits(window, act, random_layer):
    """acc = border - 2 sum of differing bits + 2 o_w sum of ones, with 0 for padded planes."""
    weight = Encoding(2, 1.0, np.arange(8) / 2)
    layer = random_layer(0, weight, act, **window)
    layer.act_codes[:] = 0
    layer.weight_codes[:] = 0  # Nothing differs and nothing is one: all that is left is the border.
    static = conv_layer(layer)
    table, row_class, column_class = static.border
    assert table.dtype == np.int32 and static.has_act_sum
    constants = table[row_class][:, column_class].transpose(2, 0, 1)
    assert np.array_equal(constants[None], layer.accumulators())


def test_rows_that_lose_the_same_taps_share_a_class(random_layer):
    layer = random_layer(0, Encoding.symmetric(1), Encoding.symmetric(1), size=(40, 1), padding=1)
    table, row_class, column_class = conv_layer(layer).border
    assert table.shape == (3, 1, 8)
    assert len(set(row_class[1:-1])) == 1 and len(set(row_class)) == 3
    assert column_class.tolist() == [0]


@pytest.mark.parametrize("lanes", [1, 4, 8])
def test_xnor_weights_hold_every_code_once(lanes, random_layer):
    layer = random_layer(
        0, Encoding.signed(3), Encoding.unsigned(1), channels=140, groups=2, out_channels=12
    )
    words = xnor_weights(conv_layer(layer), lanes)
    groups, blocks, kernel_h, kernel_w, depth, bits, _ = words.shape
    assert (groups, kernel_h, kernel_w, depth, bits) == (2, 3, 3, 2, 3)
    assert blocks == -(-6 // lanes)
    by_channel = words.transpose(0, 1, 6, 2, 3, 5, 4).reshape(2, blocks * lanes, 3, 3, 3, 2)
    codes = unpack(by_channel[:, :6].reshape(12, 3, 3, 3, 2), 70)
    assert np.array_equal(np.moveaxis(codes, -1, 1), layer.weight_codes)


def test_stored_bytes_are_those_of_the_planes(random_layer):
    layer = random_layer(0, Encoding.signed(3), Encoding.unsigned(1), channels=70)
    words = pack(np.moveaxis(layer.weight_codes, 1, -1), 3)
    assert conv_layer(layer).stored_bytes == words.nbytes
