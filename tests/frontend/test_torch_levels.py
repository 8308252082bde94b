"""Quantizers of unequal steps, as their authors define them: codes in planes, torch's numbers."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import tvm_bitenc as be
from tests.frontend.onnx_models import ModelBuilder, onnx_runtime


def steps(x, bounds, coefficients):
    return sum(c * (x > v).float() for v, c in zip(bounds, coefficients))


def pa_weight(w):
    """PA-Net: cut at endpoints from mean and deviation; one coefficient a piece, one piece 0."""
    mean, deviation = w.mean(), w.std()
    low, inner_low, inner_high, high = (mean + k * deviation for k in (-1.5, -0.5, 0.5, 1.5))
    found = -7 / 16 * (w < low).float() - 2 / 16 * ((w >= low) & (w < inner_low)).float()
    return found + 3 / 16 * ((w >= inner_high) & (w < high)).float() + 9 / 16 * (w >= high).float()


def pa_act(x):
    return steps(x, (-0.5, 0.25, 1.0, 1.5, 2.0), (0.375, 0.5, 0.625, 1.75, 2.25))


def pa_masks(x):
    """The same with a mask for each piece."""
    first, second = (x > -0.5) & (x <= 0.25), (x > 0.25) & ~(x > 1)
    return 0.375 * first + 0.875 * second.float() + 1.5 * torch.logical_not(x <= 1)


def abc_weight(w):
    bases = [torch.sign(w - w.mean() + u * w.std()) for u in (-1, 0, 1)]
    return sum(a * base for a, base in zip((0.625, 0.375, 0.125), bases))


def abc_act(x):
    shifted = [torch.clamp(x + v, 0, 1) >= 0.5 for v in (-0.7, 0.0, 0.4)]
    return sum(b * (2 * s.float() - 1) for b, s in zip((0.5, 0.25, 0.75), shifted))


def nearest(x, levels):
    found = torch.full_like(x, levels[0])
    for low, high in itertools.pairwise(levels):
        found = torch.where(x > (low + high) / 2, torch.full_like(x, high), found)
    return found


def lq_weight(w):
    """LQ-Net: sums of a learned basis, times -1 or +1."""
    return nearest(w, (-1.625, -0.875, 0.875, 1.625))


def lq_act(x):
    return nearest(x, (0.0, 0.375, 1.25, 1.625))


HIGH, LOW = (0, 2**0, 2**-2, 2**-4), (0, 2**-1, 2**-3, 2**-5)
POWERS = sorted(a + b for a in HIGH for b in LOW)


def apot_weight(w):
    """APoT: the nearest sum of two powers of two, chosen as in the authors' code."""
    scaled, levels = (w / 2).clamp(-1.5, 1.5), torch.tensor(POWERS)
    index = (scaled.abs().reshape(1, -1) - levels.reshape(-1, 1)).abs().min(dim=0)[1]
    return 2 * scaled.sign() * levels[index].reshape(w.shape)


def apot_act(x):
    return steps(x, [(a + b) / 2 for a, b in itertools.pairwise(POWERS)], np.diff(POWERS).tolist())


def ttq_weight(w):
    """TTQ: +Wp, 0 and -Wn."""
    threshold = 0.05 * w.abs().max()
    return 1.25 * (w > threshold).float() - 0.875 * (w < -threshold).float()


def straight_through(x):
    """As training leaves it: x + (q - x), which is q where x lies within a range."""
    x = x.clamp(0, 2)
    return x + (steps(x, (0.2, 0.6, 1.2), (0.375, 0.5, 0.625)) - x).detach()


# Planes of the weights and of the activations.
QUANTIZERS = {
    "PA-Net": (4, 5, pa_weight, pa_act),
    "PA-Net, masks": (4, 3, pa_weight, pa_masks),
    "ABC-Net": (3, 3, abc_weight, abc_act),
    "LQ-Net": (2, 2, lq_weight, lq_act),
    "APoT": (7, 6, apot_weight, apot_act),
    "TTQ": (2, 1, ttq_weight, lambda x: steps(x, [0.3], [1.0])),
    "falling masks": (2, 2, ttq_weight, lambda x: 3.0 - (x <= 1).float() - 2 * (x <= 0).float()),
    "integers": (2, 2, ttq_weight, lambda x: ((x > 0).int() * 3 + (x > 1).int() * 8).float() / 8),
    "straight-through": (2, 3, ttq_weight, straight_through),
    "signs": (2, 4, ttq_weight, lambda x: 4 * torch.sign(x) + torch.sign(x - 1)),
}


class Net(nn.Module):
    """Two convolutions of one spelling; the second reads what thresholds make."""

    def __init__(self, weight, act):
        super().__init__()
        torch.manual_seed(0)
        self.weight, self.act = weight, act
        self.conv1, self.conv2 = nn.Conv2d(7, 16, 3, padding=1), nn.Conv2d(16, 8, 3, bias=False)
        self.factor = nn.Parameter(2.0 ** torch.randint(-4, -1, (16, 1, 1)))
        for conv in (self.conv1, self.conv2):
            nn.init.normal_(conv.weight)
        self.factor.data[::3] *= -1

    def forward(self, x):
        x = functional.conv2d(self.act(x), self.weight(self.conv1.weight), padding=1)
        x = functional.max_pool2d(self.factor * x - 0.0625, 2)
        return functional.conv2d(self.act(x), self.weight(self.conv2.weight))


def near_bounds():
    """Sixteenths meet the bounds exactly; then there are numbers just beside them."""
    rng = np.random.default_rng(0)
    x = (rng.integers(-40, 48, (2, 7, 8, 9)) / 16).astype(np.float32)
    return torch.from_numpy(np.where(rng.random(x.shape) < 0.5, x, np.nextafter(x, x + 1)))


def pieces_of(report):
    return [(row.weight_bits, row.act_bits) for row in report.layers]


@pytest.mark.sweep(4)
@pytest.mark.parametrize("name", QUANTIZERS)
def test_unequal_steps(name):
    weight_bits, act_bits, *functions = QUANTIZERS[name]
    model, x = Net(*functions).eval(), near_bounds()
    lib = be.build(be.from_torch(model, (x,)))
    report = lib.report()
    assert pieces_of(report) == [(weight_bits, act_bits)] * 2, report
    assert report.layers[0].out_bits == act_bits  # Thermometers as they are.
    assert np.array_equal(lib(x), model(x).detach().numpy())


REFUSED = {
    "real coefficients": (
        lambda x: steps(x, (0, 1, 2), (0.3, np.pi, 0.7)),
        "its levels 0, 0.3, 3.44159, 4.14159 aren't whole multiples of one number",
    ),
    "falling": (lambda x: steps(x, (0, 1), (1, -0.5)), "its levels 0, 1, 0.5 don't rise"),
    "too many": (
        lambda x: steps(x, range(10), (101, 2, 83, 4, 79, 6, 97, 8, 89, 3)),
        "11 levels up to 472 take 9 planes",
    ),
    "constants of channels": (
        lambda x: (x > torch.arange(7).reshape(7, 1, 1)).float() + 2 * (x > 9).float(),
        "it is computed from quantized tensors",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_stays_float_and_why(name):
    act, message = REFUSED[name]

    class Layer(nn.Module):
        def forward(self, x):
            return functional.conv2d(act(x), torch.ones(3, 7, 1, 1))

    x = near_bounds()
    lib = be.build(be.from_torch(Layer(), (x,)))
    (layer,) = lib.report().float_layers
    assert message in layer.reason
    assert np.allclose(lib(x), Layer()(x).numpy(), rtol=1e-5, atol=1e-5)


def test_weights_of_real_coefficients_stay_float():
    model = Net(lambda w: 1.25 * (w > 0.1).float() - 0.87654 * (w < 0).float(), pa_act).eval()
    report = be.build(be.from_torch(model, (near_bounds(),))).report()
    message = "its values -0.87654, 0, 1.25 aren't whole multiples of one number"
    assert [message in layer.reason for layer in report.float_layers] == [True, True]


def test_onnx():
    """The same values and arithmetic, whoever wrote the graph."""
    g, rng = ModelBuilder(17), np.random.default_rng(0)
    weight = torch.from_numpy(rng.normal(size=(8, 7, 3, 3)).astype(np.float32))
    parts = []
    for bound, coefficient in ((-0.5, 0.375), (0.25, 0.5), (1.0, 1.5)):
        mask = g.add("Cast", g.add("Greater", "x", g.constant(bound, np.float32)), to=1)
        parts.append(g.add("Mul", mask, g.constant(coefficient, np.float32)))
    levels = g.add("Add", g.add("Add", parts[0], parts[1]), parts[2])
    y = g.add("Conv", levels, g.constant(pa_weight(weight).numpy(), np.float32))
    model = g.model({"x": (np.float32, (2, 7, 8, 9))}, {y: (np.float32, (2, 8, 6, 7))})
    lib, x = be.build(be.from_onnx(model)), near_bounds().numpy()
    assert pieces_of(lib.report()) == [(4, 3)]
    assert np.array_equal(lib(x), onnx_runtime(model, {"x": x})[0])
