"""Piecewise approximation, against its formulas in numpy."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import tvm_bitenc as be
from tvm_bitenc.nn import PiecewiseActivation, PiecewiseConv2d


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def uneven(steps=3, input_range=2.0):
    """Steps whose places and heights are trained away from where they were."""
    act = PiecewiseActivation(steps, input_range)
    with torch.no_grad():
        act.bounds += torch.linspace(-0.2, 0.4, steps)
        act.heights *= torch.linspace(0.3, 1.9, steps)
    act.update_scales()
    return act


@pytest.mark.parametrize("steps", [1, 2, 5, 8])
def test_levels_are_sums_of_integer_steps(steps):
    act, x = uneven(steps), torch.linspace(-1, 3, 101)
    integers = act.coefficients.numpy()
    assert np.array_equal(integers, np.rint(integers)) and integers.min() >= 1
    assert integers.sum() <= 255
    heights = act.heights.detach().numpy()
    assert np.abs(integers * act.scale.item() - heights).max() <= act.scale.item() * 0.5001
    expected = ((x.numpy()[:, None] > act.bounds.detach().numpy()) * integers).sum(1)
    assert np.array_equal(act.integers(x).detach().numpy(), expected)
    assert np.array_equal(act(x).detach().numpy(), np.float32(expected) * act.scale.numpy())


def test_steps_that_fall_count_as_the_least():
    act = PiecewiseActivation(3)
    with torch.no_grad():
        act.heights.copy_(torch.tensor([0.5, -0.2, 0.25]))
    act.update_scales()
    assert act.coefficients.tolist()[1] == 1


def test_untrained_steps_round():
    act, x = PiecewiseActivation(5, 5.0), torch.linspace(-0.9, 5.9, 97)
    assert np.allclose(act(x).detach(), x.round().clamp(0, 5), atol=1e-5)


def test_gradients_of_steps():
    """Ramps around places; evenly spaced ones are straight-through; heights as they are."""
    act, x = PiecewiseActivation(4, 4.0), torch.linspace(-0.93, 4.87, 40, requires_grad=True)
    weights = torch.rand(40)
    (act(x) * weights).sum().backward()
    inside = (x.detach() > 0) & (x.detach() <= 4)
    assert torch.allclose(x.grad, weights * inside, atol=1e-2)
    above = x.detach()[:, None] > act.bounds.detach()
    assert torch.allclose(act.heights.grad, (weights[:, None] * above).sum(0), rtol=1e-2)
    near = (x.detach()[:, None] - act.bounds.detach()).abs() < 0.5
    assert torch.allclose(act.bounds.grad, -(weights[:, None] * near).sum(0), rtol=1e-2)


@pytest.mark.parametrize("pieces", [2, 4, 8])
def test_weights_are_cut_into_pieces(pieces):
    layer = PiecewiseConv2d(6, 8, 3, weight_pieces=pieces, act_steps=2).eval()
    weight = layer.weight.detach().numpy().astype(np.float64)
    ends = weight.mean() + (np.arange(pieces) - (pieces - 1) / 2) * weight.std()
    piece = (weight[..., None] > np.float32(ends)).sum(-1)
    means = [weight[piece == i].mean() if np.any(piece == i) else 0 for i in range(pieces + 1)]
    means[pieces // 2] = 0
    scale = np.abs(means).max() / 127
    integers = layer.weight_integers().detach().numpy()
    assert np.isclose(layer.weight_scale.item(), scale)
    assert np.array_equal(integers, np.rint(np.array(means) / scale)[piece])
    assert np.abs(integers).max() == 127 and np.any(integers == 0)


def test_the_convolution_and_the_gradient_of_its_weight():
    layer, x = PiecewiseConv2d(3, 4, 3, padding=1, act=uneven()), torch.rand(2, 3, 5, 5) * 2
    y = layer(x)
    real = layer.weight_integers().detach() * layer.weight_scale
    expected = functional.conv2d(layer.act(x), real, layer.bias, padding=1)
    assert torch.allclose(y, expected, atol=1e-5)
    (grad,) = torch.autograd.grad(y.square().sum(), layer.weight, retain_graph=True)
    real.requires_grad_()
    loss = functional.conv2d(layer.act(x).detach(), real, layer.bias, padding=1).square().sum()
    assert torch.allclose(grad, torch.autograd.grad(loss, real)[0], rtol=1e-3, atol=1e-4)


def network():
    model = nn.Sequential(
        PiecewiseConv2d(3, 8, 3, padding=1, act=uneven(5)),
        nn.BatchNorm2d(8),
        PiecewiseConv2d(8, 8, 3, stride=2, groups=2, weight_pieces=2, act=uneven(3, 4.0)),
    )
    model(torch.rand(8, 3, 9, 9))
    return model


def test_exported_layers_compile_to_planes():
    """Scales lie outside the convolution, so every number is torch's."""
    model, x = network().eval(), torch.randn(2, 3, 9, 9)
    lib = be.build(be.from_torch(model, (x,)))
    assert [(row.weight_bits, row.act_bits) for row in lib.report().layers] == [(4, 5), (2, 3)]
    assert np.array_equal(lib(x), model(x).detach().numpy())


def test_state_and_copies():
    model, x = network(), torch.randn(2, 3, 9, 9)
    model.eval()
    other = copy.deepcopy(model)
    fresh = nn.Sequential(*(copy.deepcopy(layer) for layer in network())).eval()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x)) and torch.equal(fresh(x), model(x))
    assert "coefficients" in model[0].state_dict() and "act.scale" in model[0].state_dict()


def test_mixed_precision_trains():
    model = network()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(torch.randn(2, 3, 9, 9)).square().mean()
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.dtype == torch.float32 and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: PiecewiseActivation(0), "Use 1 to 8"),
        (lambda: PiecewiseActivation(9), "Use 1 to 8"),
        (lambda: PiecewiseActivation(2, 0.0), "Use a positive number"),
        (lambda: PiecewiseConv2d(3, 4, 3), "either act_steps= or act="),
        (lambda: PiecewiseConv2d(3, 4, 3, act_steps=2, act=uneven()), "either act_steps= or act="),
        (lambda: PiecewiseConv2d(3, 4, 3, act_steps=2, weight_pieces=3), "Use 2, 4, 6, 8"),
        (lambda: PiecewiseConv2d(3, 4, 3, act_steps=2, padding_mode="reflect"), "Use 'zeros'"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
