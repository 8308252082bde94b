import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tvm_bitenc.nn import QConv2d, QLinear, init_from
from tvm_bitenc.nn.layers import GAUSSIAN_HALF_STEP


def network(weight_bits=None, act_bits=None, width=4):
    bits = dict(weight_bits=weight_bits, act_bits=act_bits) if weight_bits else {}
    conv, linear = (QConv2d, QLinear) if weight_bits else (nn.Conv2d, nn.Linear)
    layers = [conv(1, width, 3, **bits), nn.BatchNorm2d(width), nn.Flatten(), linear(4, 2, **bits)]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("high", [(None, None), (8, 8)])
def test_init_from(high):
    source, low = network(*high), network(2, 2)
    source(torch.randn(4, 1, 3, 3))  # moves the batch-norm statistics
    assert init_from(low, source) is low
    copied = low.state_dict()
    for name, value in source.state_dict().items():
        if "scale" not in name:
            assert torch.equal(copied[name], value) and copied[name] is not value
    expected = low[0].weight.square().mean((1, 2, 3)).sqrt() * GAUSSIAN_HALF_STEP[2]
    assert_close(low[0].weight_scale, expected.detach())
    assert_close(low[0].out_scale.flatten(), expected.detach() / 6)


def test_init_from_names_what_differs():
    with pytest.raises(ValueError, match=r"only in low: .*0\.weight.*only in high: .*0\.weight"):
        init_from(network(2, 2), network(width=5))
