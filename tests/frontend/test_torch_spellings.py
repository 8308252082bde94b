"""Quantizers as people write them in torch: each becomes codes, and every number is torch's."""

import numpy as np
import pytest
import torch
import tvm
from torch import nn
from torch.nn import functional
from tvm import relax

import tvm_bitenc as be
from tvm_bitenc.explain import explain
from tvm_bitenc.nn import quantize
from tvm_bitenc.transform import no_lowering
from tvm_bitenc.transform.canonicalize import Canonicalize

S = 0.11  # No power of two: multiplying by 1 / S isn't dividing by S.


def round_pass(x):
    """LSQ's rounding with a straight-through gradient."""
    return (x.round() - x).detach() + x


def pact(x, limit=3.1, top=15):
    clipped = torch.minimum(torch.relu(x), torch.tensor(limit))
    quantized = torch.round(clipped * (top / limit)) * (limit / top)
    return clipped + (quantized - clipped).detach()


def clipped_by_tensors(x):
    return torch.minimum(torch.maximum(x, torch.tensor(-8.0)), torch.tensor(7.0))


# Bits, and the function.
ACTIVATIONS = {
    "divide, round, clamp, multiply": (4, lambda x: (x / S).round().clamp(0, 15) * S),
    "clamp before round": (4, lambda x: torch.round(torch.clamp(x / S, -8, 7)) * S),
    "narrow range": (4, lambda x: torch.clamp(torch.round(x / S), -7, 7) * S),
    "clamp of the real value": (4, lambda x: torch.round(torch.clamp(x, -7 * S, 7 * S) / S) * S),
    "zero point before rounding": (4, lambda x: ((x / S + 3).round().clamp(0, 15) - 3) * S),
    "zero point after rounding": (4, lambda x: ((x / S).round().add(3).clamp(0, 15) - 3) * S),
    "levels without a scale": (4, lambda x: (x / S + 3).round().clamp(0, 15)),
    "reciprocal": (3, lambda x: torch.round(x * (1 / S)).clamp(-4, 3) * S),
    "a power of two": (3, lambda x: torch.round(x * 8).clamp(-4, 3) / 8),
    "floor of a half more": (4, lambda x: torch.floor(x / S + 0.5).clamp(0, 15) * S),
    "floor": (4, lambda x: torch.floor(torch.clamp(x / S, 0, 15)) * S),
    "ceil": (4, lambda x: torch.ceil(x / S).clamp(0, 15) * S),
    "trunc": (3, lambda x: torch.trunc(x / S).clamp(-3, 3) * S),
    "relu6": (8, lambda x: torch.round(functional.relu6(x) / (6 / 255)) * (6 / 255)),
    "minimum and maximum": (4, lambda x: clipped_by_tensors((x / S).round()) * S),
    "LSQ": (4, lambda x: round_pass(torch.clamp(x / S, 0, 14)) * S),
    "PACT": (4, pact),
    "where": (1, lambda x: torch.where(x >= 0, 1.0, -1.0)),
    "where, other way round": (1, lambda x: torch.where(x < 0, -torch.ones_like(x), 1.0)),
    "where, above": (1, lambda x: torch.where(x > 0, 1.0, -1.0)),
    "where, a threshold": (1, lambda x: torch.where(x >= 0.3, 0.5, -0.5)),
    "where, falling": (1, lambda x: torch.where(x <= 0.3, 0.5, -0.5)),
    "cast": (1, lambda x: (x >= 0).float() * 2 - 1),
    "hardtanh and where": (1, lambda x: torch.where(functional.hardtanh(x) >= 0, 1.0, -1.0)),
    "sign": (2, torch.sign),
    "hardtanh and sign": (2, lambda x: functional.hardtanh(x).sign()),
}


@pytest.mark.parametrize("part", range(3))
def test_activations(part, same_as_torch, near_ties):
    found = list(ACTIVATIONS.values())[part::3]
    x = np.concatenate([near_ties(S, 0, -20, 20), near_ties(S, 0.5, -20, 20), near_ties(6 / 255)])
    layers = same_as_torch([quantizer for _, quantizer in found], x)
    assert [row.act_bits for row in layers] == [bits for bits, _ in found]


def dorefa(x, top=15):
    return torch.round(torch.clamp(x, 0, 1) * top) / top


def test_levels_that_float32_rounds(near_ties):
    """k / 15 isn't k * (1 / 15): codes are the same, and the levels within a last bit."""
    x = torch.from_numpy(near_ties(1 / 15, 0, -20, 20)).reshape(1, 1, -1, 1)

    class Layer(nn.Module):
        def forward(self, x):
            return functional.conv2d(dorefa(x), torch.where(torch.ones(1, 1, 1, 1) > 0, 1.0, 0.0))

    lib, expected = be.build(be.from_torch(Layer(), (x,))), Layer()(x).numpy()
    y = lib(x)
    assert np.array_equal(np.rint(y * 15), np.rint(expected * 15))
    assert np.any(y != expected) and np.abs(y - expected).max() < 2.0**-23
    assert [row.act_bits for row in lib.report().layers] == [4]


WEIGHTS = {
    "LSQ, per channel": (4, lambda w, s: round_pass(torch.clamp(w / s, -8, 7)) * s),
    "residue of the whole quantizer": (
        4,
        lambda w, s: w + (torch.round(torch.clamp(w / S, -8, 7)) * S - w).detach(),
    ),
    "DoReFa": (
        4,
        lambda w, s: 2 * dorefa(torch.tanh(w) / (2 * torch.tanh(w).abs().max()) + 0.5) - 1,
    ),
    "sign": (1, lambda w, s: torch.sign(w)),
    "XNOR-Net": (1, lambda w, s: torch.sign(w) * w.abs().mean((1, 2, 3), keepdim=True)),
    "where": (1, lambda w, s: torch.where(w >= 0, 1.0, -1.0) * s),
    "ternary": (2, lambda w, s: torch.round(torch.clamp(w / s, -1, 1)) * s),
}


class Spelt(nn.Module):
    """Two convolutions with weights of one spelling."""

    def __init__(self, weight):
        super().__init__()
        torch.manual_seed(3)
        self.weight, self.scale = weight, nn.Parameter(torch.rand(8, 1, 1, 1) * 0.1 + 0.03)
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, stride=2, bias=False)

    def forward(self, x):
        for conv in (self.conv1, self.conv2):
            a = (x / 0.25).round().clamp(0, 15) * 0.25
            w = self.weight(conv.weight, self.scale)
            x = functional.conv2d(a, w, conv.bias, conv.stride, conv.padding)
        return x


@pytest.mark.sweep(2)
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(name):
    bits, weight = WEIGHTS[name]
    model, x = Spelt(weight).eval(), torch.randn(1, 3, 7, 7)
    mod = be.from_torch(model, (x,))
    lib, expected = be.build(mod), model(x).detach().numpy()
    report = lib.report()
    assert [row.weight_bits for row in report.layers] == [bits] * 2, report
    assert not [note for note in report.notes if "by their values" in note]  # Spelt is no guess.
    assert np.abs(lib(x) - expected).max() < 1e-5 * np.abs(expected).max()


def codewords(w):
    """Kernels out of sixteen, times a scale per output channel."""
    size = w.shape[2] * w.shape[3]
    words, index = torch.sign(torch.randn(16, size)), torch.randint(0, 16, w.shape[:2])
    return words[index].reshape(w.shape) * w.abs().mean((1, 2, 3), keepdim=True)


# As they lie in a checkpoint: no arithmetic says how they were made.
STORED = {
    "signs": (1, torch.sign),
    "alpha * sign(w)": (1, lambda w: torch.sign(w) * w.abs().mean((1, 2, 3), keepdim=True)),
    "codewords": (1, codewords),
    "ternary": (2, lambda w: torch.round(torch.clamp(w / 0.1, -1, 1)) * 0.07),
    "4 bits": (4, lambda w: torch.clamp(torch.round(w / 0.021), -8, 7) * 0.021),
}


@pytest.mark.parametrize("name", STORED)
def test_weights_out_of_a_checkpoint(name):
    bits, make = STORED[name]
    torch.manual_seed(1)
    conv, dense = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 6)
    with torch.no_grad():
        conv.weight.copy_(make(conv.weight))
        dense.weight.copy_(make(dense.weight.reshape(6, 8, 1, 1)).reshape(6, 8))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.dense = conv, dense

        def forward(self, x):
            y = self.conv((x / 0.25).round().clamp(0, 15) * 0.25).mean((2, 3))
            return self.dense((y / 0.11).round().clamp(-8, 7) * 0.11)

    model, x = Net().eval(), torch.rand(1, 3, 7, 7) * 4
    lib, expected = be.build(be.from_torch(model, (x,))), model(x).detach().numpy()
    report = lib.report()
    assert [(row.name, row.weight_bits) for row in report.layers] == [
        ("conv", bits),
        ("dense", bits),
    ], report
    assert np.abs(lib(x) - expected).max() < 1e-5 * np.abs(expected).max()


def test_signs_of_groups_that_share_no_channels():
    """Of a transposed convolution, whose weight has no axis of output channels: it stays float."""
    torch.manual_seed(0)
    conv = nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False)
    alpha = torch.tensor([0.3, 0.5, 0.7]).reshape(1, 3, 1, 1)

    class Net(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.conv = nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False)
            with torch.no_grad():
                self.conv.weight.copy_(torch.sign(conv.weight) * scale)

        def forward(self, x):
            return self.conv((x / 0.25).round().clamp(0, 15) * 0.25)

    x = torch.rand(1, 4, 5, 5) * 4
    for scale in (0.3, alpha):
        model = Net(scale).eval()
        lib, expected = be.build(be.from_torch(model, (x,))), model(x).detach().numpy()
        assert not lib.report().layers
        assert np.abs(lib(x) - expected).max() < 1e-5 * np.abs(expected).max()


def test_signs_behind_floats_are_no_quantizer(ops_of):
    """A float layer stays as it is, to the last bit of its weights."""
    model = nn.Conv2d(3, 8, 3).eval()
    with torch.no_grad():
        model.weight.copy_(torch.sign(model.weight) * 0.3)
    mod = be.from_torch(model, (torch.rand(1, 3, 7, 7),))
    assert "bitenc.quantize" not in ops_of(Canonicalize()(mod))


def test_floats_in_a_checkpoint_stay_floats():
    model = nn.Sequential(nn.Hardtanh(0, 1), nn.Conv2d(3, 8, 3))

    class Net(nn.Module):
        def forward(self, x):
            return model[1]((x.clamp(0, 1) * 15).round() / 15)

    lib = be.build(be.from_torch(Net().eval(), (torch.rand(1, 3, 7, 7),)))
    assert not lib.report().layers
    assert "its values are floats on no grid of 256 levels" in str(lib.report())


SCALES = torch.tensor([[0.11], [0.3]])  # With an axis that the op doesn't take.


@pytest.mark.parametrize(
    "scale, zero_point",
    [
        (lambda scales: scales[1, 0], lambda _scales: 3.0),
        (lambda scales: 1 / scales.max(), lambda scales: scales.flatten().argmax() + 2.0),
    ],
)
def test_scales_of_the_op_may_be_computed_from_parameters(
    scale, zero_point, same_as_torch, near_ties
):
    class Quantizer(nn.Module):
        def __init__(self):
            super().__init__()
            self.scales = nn.Parameter(SCALES)

        def forward(self, x):
            return quantize(x, scale(self.scales), zero_point(self.scales), 3)

    (layer,) = same_as_torch([Quantizer()], near_ties(0.3, 3, -20, 20))
    assert layer.act_bits == 3


def test_constants_are_torchs_own(same):
    """A mean over filters depends on the order of its sum; it is torch's."""
    model, x = Spelt(WEIGHTS["XNOR-Net"][1]).eval(), torch.randn(1, 3, 7, 7)
    scales = model.conv1.weight.abs().mean((1, 2, 3), keepdim=True).detach().numpy()
    mod = be.from_torch(model, (x,))
    constants = []

    def visit(expr):
        if isinstance(expr, tvm.ir.GenericConst):
            constants.append(expr.value.numpy())

    relax.analysis.post_order_visit(mod["main"], visit)
    assert any(same(value, scales) for value in constants)


FLOAT = {
    "x + (q - x)": (lambda x: x + ((x / S).round().clamp(0, 15) * S - x).detach(), "Clip x"),
    "nothing bounds it": (lambda x: (x / S).round() * S, "Clamp it"),
    "257 levels": (lambda x: (x / S).round().clamp(-128, 128) * S, "8 bits or fewer"),
    "unequal distances": (lambda x: torch.exp((x / S).round().clamp(0, 3)), "Put a quantizer"),
    "input of the network": (lambda x: x, "Quantize it first"),
    "comes from softmax": (lambda x: torch.softmax(x, 1), "Put a quantizer between"),
}


@pytest.mark.sweep(2)
@pytest.mark.parametrize("reason", FLOAT)
def test_what_is_none_stays_float(reason):
    quantizer, cure = FLOAT[reason]

    class Layer(nn.Module):
        def forward(self, x):
            return functional.conv2d(
                quantizer(x), torch.where(torch.ones(1, 1, 1, 1) > 0, 1.0, 0.0)
            )

    x = torch.randn(1, 1, 8, 8)
    mod = be.from_torch(Layer(), (x,))
    (left,) = explain(mod).float_layers
    assert cure in left.cure and left.macs == 64
    if reason != "unequal distances":
        assert reason in left.reason
    assert np.abs(be.build(mod)(x) - Layer()(x).numpy()).max() < 1e-6


def test_the_residue_beyond_the_range_is_no_level():
    """Why `x + (q - x)` is left alone: float32 doesn't give q there."""
    x = torch.linspace(-100, 100, 1001)
    q = (x / S).round().clamp(0, 15) * S
    assert torch.any(x + (q - x) != q)


@pytest.mark.slow
def test_un_lowered_models_are_torchs_own(same, near_ties):
    """Activation by activation, before any pass."""
    x = torch.from_numpy(near_ties(S)).reshape(1, 1, -1, 1)

    class All(nn.Module):
        def forward(self, x):
            return tuple(quantizer(x) for _, quantizer in ACTIVATIONS.values())

    results = be.build(be.from_torch(All(), (x,)), pipeline=no_lowering)(x)
    for name, y, expected in zip(ACTIVATIONS, results, All()(x)):
        assert np.array_equal(y, expected.numpy()), name
