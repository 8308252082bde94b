"""Modules of quantized layers against the integer reference, bit for bit."""

import numpy as np
import pytest
import torch

from tvm_bitenc import reference
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.frontend.ptq.layer import Layer, QuantizedLayer
from tvm_bitenc.frontend.ptq.torch_layers import InputQuantizer, integer_layer

ACTS = [
    Encoding.unsigned(4, 0.3),
    Encoding(3, 0.7, 2.0),
    Encoding(2, 0.4, 1.5),
    Encoding(8, 0.1, 9),
]


def quantized(act, weight_bits, shape, **window):
    random = np.random.default_rng(0)
    codes = random.integers(0, 2**weight_bits, shape).astype(np.uint8)
    weight = Encoding(
        weight_bits, random.uniform(0.1, 1, shape[0]).astype("f"), (2**weight_bits - 1) / 2
    )
    layer = Layer("layer", "x", "y", np.zeros(shape, np.float32), None, **window)
    bias = random.normal(size=shape[0]).astype(np.float32)
    return QuantizedLayer(layer, act, weight, codes, bias)


@pytest.mark.parametrize("act", ACTS, ids=repr)
def test_input_integers(act):
    x = torch.linspace(-2, 7, 1001)
    integers = InputQuantizer(act, np.float32(2) / act.scale)(x).numpy()
    expected = act.integers(act.quantize(x.numpy()))
    # x times 2 / s isn't x / s rounded once: a value at the edge of two codes may take either.
    assert (integers != expected).mean() < 0.01 and np.abs(integers - expected).max() <= 2


@pytest.mark.parametrize("act", ACTS, ids=repr)
@pytest.mark.parametrize("bits", [1, 3, 8])
def test_convolutions_are_the_integer_reference(act, bits):
    window = dict(strides=(2, 1), padding=(1, 0, 2, 1), dilation=(1, 2), groups=2)
    one = quantized(act, bits, (6, 2, 3, 2), **window)
    codes = np.random.default_rng(1).integers(0, 2**act.bits, (2, 4, 6, 7)).astype(np.uint8)
    names = ("stride", "padding", "dilation", "groups")
    sums = reference.conv2d(
        codes, act, one.codes, one.weight, **dict(zip(names, window.values()))
    ).astype(np.float32)
    shape = (-1, 1, 1)
    expected = sums * one.out_scale.reshape(shape) + one.bias.reshape(shape)
    found = integer_layer(one)(torch.from_numpy(act.integers(codes).astype(np.float32)))
    assert np.array_equal(found.numpy(), expected)


def test_dense_layers_and_transposed_convolutions():
    random = np.random.default_rng(2)
    act = ACTS[1]
    dense = quantized(act, 3, (5, 7))
    integers = act.integers(random.integers(0, 8, (2, 3, 7)).astype(np.uint8)).astype(np.float32)
    expected = integers @ dense.weight_integers.T * dense.out_scale + dense.bias
    assert np.array_equal(integer_layer(dense)(torch.from_numpy(integers)).numpy(), expected)
    window = dict(strides=(3,), padding=(1, 1), dilation=(1,), output_padding=(2,))
    one = quantized(act, 3, (5, 4, 2), **window)
    x = torch.from_numpy(integers.reshape(1, 6, 7)[:, :4])
    sums = one.layer.apply(x, torch.from_numpy(one.weight_integers)).numpy()
    expected = sums * one.out_scale[:, None] + one.bias[:, None]
    assert np.array_equal(integer_layer(one)(x).numpy(), expected)
