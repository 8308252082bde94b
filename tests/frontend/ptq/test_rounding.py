"""Roundings of one layer: each makes the error smaller that it promises to."""

import numpy as np
import pytest
import torch

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.frontend.ptq import rounding
from tvm_bitenc.frontend.ptq.grids import weight_encoding
from tvm_bitenc.frontend.ptq.layer import Layer
from tvm_bitenc.frontend.ptq.rounding import on_grid, quantize_layer


def conv_layer(bias=True):
    random = np.random.default_rng(0)
    weight = random.normal(size=(8, 3, 3, 3)).astype(np.float32)
    offsets = random.normal(size=8).astype(np.float32) if bias else None
    return Layer("conv", "x", "y", weight, offsets, (2, 1), (1, 0, 1, 2), (1, 2))


def dense_layer(bias=True):
    random = np.random.default_rng(0)
    offsets = random.normal(size=8).astype(np.float32) if bias else None
    return Layer("dense", "x", "y", random.normal(size=(8, 27)).astype(np.float32), offsets)


def inputs_of(layer):
    torch.manual_seed(0)
    shape = (16, 27) if layer.is_dense else (16, 3, 6, 7)
    # Neighbours alike, so that rounding errors add up.
    return [(torch.rand(shape).cumsum(-1) - 0.2).relu() for _ in range(3)]


def outputs_of(one, inputs):
    """Float outputs, and what the quantized layer computes, from its definition."""
    weight = torch.from_numpy(one.weight.dequantize(one.codes))
    floats, quantized = [], []
    for x in inputs:
        y = one.layer.apply(x, torch.from_numpy(one.layer.weight))
        q = one.layer.apply(on_grid(x, one.act), weight)
        floats.append(y if one.layer.bias is None else y + one.layer.per_channel(one.layer.bias))
        quantized.append(q if one.bias is None else q + one.layer.per_channel(one.bias))
    return torch.cat(floats).double(), torch.cat(quantized).double()


def quantized(layer, how, bits=3):
    inputs = inputs_of(layer)
    act, weight = Encoding.unsigned(4, 0.4), weight_encoding(layer.weight, bits)
    return quantize_layer(layer, act, weight, inputs, how), inputs


@pytest.mark.parametrize("make", [conv_layer, dense_layer])
@pytest.mark.parametrize("how", ["nearest", "bias", "adaround"])
@pytest.mark.parametrize("bias", [True, False])
def test_the_error_is_that_of_the_outputs(make, how, bias):
    one, inputs = quantized(make(bias), how)
    floats, found = outputs_of(one, inputs)
    expected = (found - floats).square().sum() / floats.square().sum()
    assert one.error == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("make", [conv_layer, dense_layer])
def test_bias_correction_leaves_no_mean_error(make):
    one, inputs = quantized(make(), "bias")
    floats, found = outputs_of(one, inputs)
    means = one.layer.channel_means(found - floats)
    assert means.abs().max() < 1e-5 * floats.abs().max()
    nearest, _ = quantized(make(), "nearest")
    assert np.array_equal(one.codes, nearest.codes) and one.error < nearest.error


@pytest.mark.parametrize("make", [conv_layer, dense_layer])
def test_adaround_beats_rounding_to_nearest(make):
    learned, _ = quantized(make(), "adaround")
    nearest, _ = quantized(make(), "bias")
    assert learned.error < 0.9 * nearest.error
    assert np.abs(learned.codes.astype(int) - nearest.codes).max() == 1
    again, _ = quantized(make(), "adaround")
    assert np.array_equal(learned.codes, again.codes) and np.array_equal(learned.bias, again.bias)


def test_adaround_is_never_worse(monkeypatch):
    """Were the learned codes bad, those of the nearest levels would be taken."""
    bad = np.zeros((8, 27), np.uint8)
    monkeypatch.setattr(rounding, "_adaround", lambda *_arguments: bad)
    learned, _ = quantized(dense_layer(), "adaround")
    nearest, _ = quantized(dense_layer(), "bias")
    assert np.array_equal(learned.codes, nearest.codes) and learned.error == nearest.error


def test_adaround_is_for_few_bits(monkeypatch):
    monkeypatch.setattr(rounding, "_adaround", lambda *_arguments: 1 / 0)
    quantized(dense_layer(), "adaround", bits=7)
    with pytest.raises(ZeroDivisionError):
        quantized(dense_layer(), "adaround", bits=6)


def test_uneven_padding_is_torchs():
    layer = conv_layer()
    x, weight = torch.rand(2, 3, 5, 5), torch.from_numpy(layer.weight)
    padded = torch.nn.functional.pad(x, (0, 2, 1, 1))
    expected = torch.nn.functional.conv2d(padded, weight, stride=(2, 1), dilation=(1, 2))
    assert torch.equal(layer.apply(x, weight), expected)
