import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tvm_bitenc.nn import BitPlaneConv2d, PiecewiseConv2d, QConv2d, QLinear, init_from
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


def test_pieces_keep_their_steps_or_take_those_of_others():
    low, high = (PiecewiseConv2d(2, 3, 3, act_steps=5) for _ in range(2))
    with torch.no_grad():
        high.act.bounds.add_(0.25)
    start = low.act.bounds.detach().clone()
    source = nn.Conv2d(2, 3, 3)
    init_from(low, source)
    assert torch.equal(low.weight, source.weight) and torch.equal(low.act.bounds, start)
    init_from(low, high)
    assert torch.equal(low.act.bounds, high.act.bounds)
    assert torch.equal(low.coefficients, high.coefficients)
    fewer = init_from(PiecewiseConv2d(2, 3, 3, act_steps=4), high)
    assert torch.equal(fewer.weight, high.weight) and len(fewer.act.bounds) == 4


@pytest.mark.parametrize("wrap", [lambda layer: layer, nn.Sequential])
def test_planes_start_from_one_weight_or_from_planes(wrap):
    source = nn.Conv2d(1, 4, 3)
    low = init_from(wrap(BitPlaneConv2d(1, 4, 3)), wrap(source))
    weight = low.get_parameter("0.weight" if wrap is nn.Sequential else "weight")
    assert torch.equal(weight, source.weight.expand(8, -1, -1, -1, -1))
    scale = low.get_buffer("0.out_scale" if wrap is nn.Sequential else "out_scale").flatten()
    assert_close(scale, source.weight.detach().abs().mean((1, 2, 3)) / 255)
    again = init_from(wrap(BitPlaneConv2d(1, 4, 3)), low)
    assert all(map(torch.equal, again.parameters(), low.parameters()))
