"""Layers: their sums against torch's, and the sizes of their codes."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.frontend.ptq.layer import Layer, QuantizedLayer, weight_bytes


def layer_of(*shape, **window):
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return Layer("layer", "x", "y", weight, None, **window)


def one_axis(**options):
    return dict(strides=(2,), padding=(1, 1), dilation=(1,)) | options


def two_axes(**options):
    return dict(strides=(2, 1), padding=(1, 0, 1, 0), dilation=(1, 2)) | options


@pytest.mark.parametrize(
    "layer, kind",
    [
        (layer_of(4, 6), "dense"),
        (layer_of(4, 6, 3, **one_axis()), "conv1d"),
        (layer_of(4, 6, 3, 3, **two_axes()), "conv2d"),
        (layer_of(4, 1, 3, 3, **two_axes(groups=4)), "depthwise"),
        (layer_of(4, 6, 3, **one_axis(output_padding=(0,))), "conv1d_transpose"),
        (layer_of(4, 6, 3, 3, **two_axes(output_padding=(0, 0))), "conv2d_transpose"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_kinds(layer, kind):
    assert layer.kind == kind


def test_uneven_padding_is_zeros_around_the_image():
    layer = layer_of(4, 3, 3, 3, **two_axes(padding=(1, 0, 2, 3)))
    x, weight = torch.rand(2, 3, 6, 7), torch.from_numpy(layer.weight)
    padded = functional.pad(x, (0, 3, 1, 2))
    expected = functional.conv2d(padded, weight, stride=(2, 1), dilation=(1, 2))
    assert torch.equal(layer.apply(x, weight), expected)


@pytest.mark.parametrize("output_padding", [(0, 0), (1, 0)])
def test_transposed_convolutions_are_torchs(output_padding):
    layer = layer_of(4, 3, 3, 2, **two_axes(padding=(1, 1, 1, 1), output_padding=output_padding))
    x, weight = torch.rand(2, 3, 5, 6), torch.from_numpy(layer.weight)
    expected = functional.conv_transpose2d(
        x, weight.transpose(0, 1), None, (2, 1), (1, 1), output_padding, 1, (1, 2)
    )
    torch.testing.assert_close(layer.apply(x, weight), expected)


def test_uneven_padding_of_a_transposed_one_cuts_the_output():
    layer = layer_of(4, 3, 3, **one_axis(padding=(0, 2), output_padding=(0,)))
    x, weight = torch.rand(2, 3, 5), torch.from_numpy(layer.weight)
    whole = functional.conv_transpose1d(x, weight.transpose(0, 1), stride=2)
    assert torch.equal(layer.apply(x, weight), whole[..., :-2])


def test_means_are_per_output_channel():
    y = torch.rand(2, 4, 5, 5)
    convolution, dense = layer_of(4, 3, 1, 1), layer_of(5, 3)
    torch.testing.assert_close(convolution.channel_means(y), y.double().mean((0, 2, 3)))
    torch.testing.assert_close(dense.channel_means(y), y.double().mean((0, 1, 2)))
    assert convolution.without_means(y).mean((0, 2, 3)).abs().max() < 1e-6


def test_codes_are_packed_without_gaps():
    layer = layer_of(5, 3, 3, 3)
    assert [weight_bytes(layer, bits) for bits in (1, 3, 8)] == [17, 51, 135]
    codes, encoding = np.zeros(layer.weight.shape, np.uint8), Encoding.symmetric(3, np.ones(5))
    one = QuantizedLayer(layer, Encoding.unsigned(4, 0.5), encoding, codes, None)
    assert one.weight_bytes == 51 and one.act_factor == 4
    assert (one.out_scale == 0.125).all() and (one.weight_integers == -7).all()
