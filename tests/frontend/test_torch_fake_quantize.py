"""Fake-quantize ops and modules: every number is torch's, at ties and beyond the range as well."""

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.ao.quantization import (
    FakeQuantize,
    FusedMovingAvgObsFakeQuantize,
    MovingAverageMinMaxObserver,
    PerChannelMinMaxObserver,
    disable_fake_quant,
    disable_observer,
)

import tvm_bitenc as be
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.transform import no_lowering

per_tensor, per_channel = (
    torch.fake_quantize_per_tensor_affine,
    torch.fake_quantize_per_channel_affine,
)
scales = st.floats(2.0**-12, 8.0, width=32)


PHASES = (Phase.explicit, Phase.generate)  # To shrink takes a compilation per step.


@st.composite
def grids(draw):
    """(scale, zero point, smallest, largest integer) of at most 8 bits."""
    low = draw(st.sampled_from([0, -1, -2, -7, -8, -127, -128]))
    high = draw(st.integers(max(low + 1, 0), low + 255 if low else 255))
    return draw(scales), draw(st.integers(low, high)), low, high


@settings(max_examples=2, deadline=None, phases=PHASES)
@given(found=st.lists(grids(), min_size=6, max_size=6, unique=True))
def test_per_tensor(found, same_as_torch, near_ties):
    quantizers = [lambda x, grid=grid: per_tensor(x, *grid) for grid in found]
    x = np.concatenate([near_ties(scale, zero, -40, 40) for scale, zero, _, _ in found])
    layers = same_as_torch(quantizers, x)
    assert [row.act_bits for row in layers] == [
        (high - low).bit_length() for *_, low, high in found
    ]


@pytest.mark.slow
@settings(max_examples=12, deadline=None, phases=PHASES)
@given(found=st.lists(grids(), min_size=6, max_size=6, unique=True))
def test_per_tensor_at_length(found, same_as_torch, near_ties):
    quantizers = [lambda x, grid=grid: per_tensor(x, *grid) for grid in found]
    same_as_torch(quantizers, np.concatenate([near_ties(grid[0], grid[1]) for grid in found]))


def test_a_division_would_give_other_codes(same_as_torch, near_ties):
    """Torch multiplies by the reciprocal, and rounds before it adds an odd zero point."""
    grid = (0.037, 3, 0, 15)
    x = torch.from_numpy(near_ties(grid[0]))
    divided = (torch.clamp(torch.round(x / grid[0] + 3), 0, 15) - 3) * grid[0]
    assert torch.count_nonzero(per_tensor(x, *grid) != divided) > 5
    same_as_torch([lambda x: per_tensor(x, *grid)], x)


class Layers(nn.Module):
    """A convolution with weights per channel, and a dense layer per tensor."""

    def __init__(self, bits=4, scale=0.0625):
        super().__init__()
        torch.manual_seed(bits)
        self.conv, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8 * 16, 5)
        self.register_buffer("scales", 2.0 ** -torch.randint(3, 6, (8,)).float())
        self.register_buffer("zeros", torch.zeros(8, dtype=torch.int32))
        self.range, self.scale = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1), scale

    def forward(self, x):
        x = per_tensor(x, self.scale, 3, 0, 255)
        w = per_channel(self.conv.weight, self.scales, self.zeros, 0, *self.range)
        x = torch.relu(nn.functional.conv2d(x, w, self.conv.bias, padding=1))
        x = per_tensor(nn.functional.max_pool2d(x, 2), self.scale, 0, 0, 15).flatten(1)
        w = per_tensor(self.fc.weight, 0.03125, 0, *self.range)
        return nn.functional.linear(x, w, self.fc.bias)


@pytest.mark.parametrize("bits", [2, 8])
def test_layers(bits, same):
    """With scales of two, torch's float convolution is exact as well, so all numbers agree."""
    model, x = Layers(bits).eval(), torch.randn(2, 3, 8, 8)
    mod = be.from_torch(model, (x,))
    lib, expected = be.build(mod), model(x).detach().numpy()
    rows = lib.report().layers
    assert [(row.weight_bits, row.act_bits, row.out_bits) for row in rows] == [
        (bits, 8, 4),
        (bits, 4, 32),
    ]
    assert same(lib(x), expected) and same(be.build(mod, pipeline=no_lowering)(x), expected)


def fake(kind=FakeQuantize, observer=MovingAverageMinMaxObserver, low=0, high=15, **options):
    module = kind(observer=observer, quant_min=low, quant_max=high, **options)
    module(torch.randn(1, 1, 64, 1))
    module.apply(disable_observer)
    return module


@pytest.mark.parametrize("kind", [FakeQuantize, FusedMovingAvgObsFakeQuantize])
def test_modules(kind, same_as_torch):
    options = dict(dtype=torch.qint8, qscheme=torch.per_channel_symmetric, ch_axis=0)
    weights = fake(observer=PerChannelMinMaxObserver, low=-8, high=7, **options)
    weights.scale, weights.zero_point = torch.tensor([0.1]), torch.tensor([0], dtype=torch.int32)
    modules = [fake(kind), fake(kind, low=0, high=100), weights]
    scale = float(modules[0].scale)
    x = (np.arange(-40, 40) + 0.5) * np.float32(scale)
    layers = same_as_torch(modules, np.concatenate([x, x * 0.1, x * 10]))
    assert [row.act_bits for row in layers] == [4, 7, 4]
    assert all("forward" not in vars(module) for module in modules)


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.act, self.weight = fake(), fake(low=-8, high=7, dtype=torch.qint8)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        return nn.functional.linear(self.act(x), self.weight(self.fc.weight))


def test_a_layer_of_modules():
    model, x = Both(), torch.randn(3, 8)
    (row,) = be.build(be.from_torch(model, (x,))).report().layers
    assert (row.weight_bits, row.act_bits) == (4, 4)


def test_an_observer_at_work_is_refused():
    model = Both()
    model.act.enable_observer()
    with pytest.raises(UnsupportedError, match=r"fake-quantize 'act'.*observes.*disable_observer"):
        be.from_torch(model, (torch.randn(3, 8),))
    assert "forward" not in vars(model.weight) and model.training


def test_a_quantizer_that_is_off_is_none():
    model = Both()
    model.act.apply(disable_fake_quant)
    x = torch.randn(3, 8)
    lib = be.build(be.from_torch(model, (x,)))
    assert not lib.report().layers
    assert np.abs(lib(x) - model(x).detach().numpy()).max() < 1e-6


def test_more_than_8_bits_stay_float():
    class Wide(nn.Module):
        def forward(self, x):
            return per_tensor(x, 0.001, 0, -32768, 32767)

    x = torch.randn(4, 8)
    mod = be.from_torch(Wide(), (x,))
    assert np.array_equal(be.build(mod)(x), Wide()(x))


@pytest.mark.parametrize("scale", [0.0, float("nan"), float("inf"), -0.5])
def test_scales_that_are_none(scale):
    class Broken(nn.Module):
        def forward(self, x):
            return per_tensor(x, scale, 0, 0, 15)

    with pytest.raises(UnsupportedError, match="scale is zero, negative or not finite.*Calibrate"):
        be.from_torch(Broken(), (torch.randn(4, 8),))


def test_a_scale_from_the_input_is_refused():
    class Dynamic(nn.Module):
        def forward(self, x):
            return per_tensor(x, x.abs().max() / 15, torch.tensor(0, dtype=torch.int32), 0, 15)

    with pytest.raises(UnsupportedError, match=r"computed from its input.*static quantization"):
        be.from_torch(Dynamic(), (torch.randn(4, 8),))
