"""The layer of an image's bit planes: sums, gradients, habits, and what it compiles to."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import tvm_bitenc as be
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.nn import BitPlaneConv2d
from tvm_bitenc.reference import conv2d
from tvm_bitenc.strategy import STRATEGIES
from tvm_bitenc.transform import no_lowering

pytestmark = pytest.mark.usefixtures("one_thread")


def image(seed=0, shape=(2, 4, 5, 6), dtype=torch.uint8):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator).to(dtype)


def layer(seed=0, **options):
    torch.manual_seed(seed)
    return BitPlaneConv2d(4, 8, 3, **options)


def sums(net, x, **window):
    """Twice the integers that the layer scales, by the reference."""
    codes = x.to(torch.uint8).numpy()
    total = 0
    for i, weight in enumerate(net.weight.detach().numpy()):
        operands = (
            codes >> i & 1,
            Encoding.unsigned(1),
            np.uint8(weight >= 0),
            Encoding.symmetric(1),
        )
        total = total + 2**i * conv2d(*operands, **window)
    return total


@pytest.mark.parametrize("window", [dict(padding=1), dict(stride=2, groups=2), dict(groups=4)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32])
def test_forward_is_the_integer_sum(window, dtype):
    net, x = layer(bias=False, **window).eval(), image(dtype=dtype)
    found = net(x) / net.out_scale
    assert torch.allclose(found, torch.from_numpy(sums(net, x, **window) / 2).float())
    net.out_scale.fill_(1)
    assert torch.equal(net(x), torch.from_numpy(sums(net, x, **window) // 2).float())


def test_fewer_bits_and_fractions():
    net = layer(bits=3).eval()
    x = image(dtype=torch.float32) % 8
    assert torch.equal(net(x), net(x + 0.75)) and net.weight.shape == (3, 8, 4, 3, 3)


def test_gradients_are_those_of_signs():
    """A weight has the gradient of its sign from -1 to 1, and none outside."""
    net, x = layer(), image()
    with torch.no_grad():
        net.weight[0, 0, 0, 0, 0] = 1.5
    net(x).square().sum().backward()
    signs = torch.where(net.weight >= 0, 1.0, -1.0).requires_grad_()
    planes = [((x >> i) & 1).float() for i in range(8)]
    y = sum(2**i * functional.conv2d(p, w) for i, (p, w) in enumerate(zip(planes, signs)))
    (y * net.out_scale + net.bias.detach().reshape(-1, 1, 1)).square().sum().backward()
    expected = signs.grad.clone()
    expected[0, 0, 0, 0, 0] = 0
    assert torch.equal(net.weight.grad, expected) and net.bias.grad.abs().min() > 0


def test_it_learns():
    """Signs that made some outputs are found again."""
    torch.manual_seed(0)
    teacher, net = (BitPlaneConv2d(1, 2, 2, bias=False, bits=2) for _ in range(2))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    assert not torch.equal(net.weight >= 0, teacher.weight >= 0)
    for step in range(30):
        x = image(step, (8, 1, 6, 6)) % 4
        loss = (net(x) / net.out_scale - teacher(x) / teacher.out_scale).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.equal(net.weight >= 0, teacher.weight >= 0)


def test_state_and_copies():
    net = layer().eval()
    assert set(net.state_dict()) == {"weight", "bias", "out_scale"}
    other = layer(1).eval()
    other.load_state_dict(net.state_dict())
    twin, x = copy.deepcopy(net), image()
    assert torch.equal(other(x), net(x)) and torch.equal(twin(x), net(x))
    with torch.no_grad():
        twin.weight.neg_()
    assert not torch.equal(twin(x), net(x))
    assert "bits=8" in repr(net)


def test_autocast_keeps_integers():
    """Images of 0 ... 255 are bfloat16 numbers, sums of their planes aren't."""
    net, x = layer().eval(), image(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net(x.bfloat16()), net(x)) and net(x).dtype == torch.float32
        net(x).sum().backward()
    assert torch.isfinite(net.weight.grad).all()


def test_the_scale_follows_in_training_alone():
    net = layer()
    with torch.no_grad():
        net.weight.mul_(2)
    before = net.out_scale
    net.eval()
    assert torch.allclose(net.out_scale, 2 * before) and net(image()).isfinite().all()


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="bits = 9"):
        layer(bits=9)
    with pytest.raises(ValueError, match="groups = 3 doesn't divide 4 and 8 channels"):
        layer(groups=3)
    with pytest.raises(ValueError, match="padding = 'same'. Use a number or two"):
        layer(padding="same")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("groups", [1, 4])
def test_it_compiles_to_one_layer(dtype, groups, same):
    net, x = layer(padding=1, groups=groups).eval(), image(dtype=dtype)
    net.out_scale.copy_(2.0 ** (torch.arange(8).reshape(8, 1, 1) - 10))
    lib = be.build(be.from_torch(net, (x,)))
    (row,) = lib.report().to_dict()["layers"]
    assert (row["weight_bits"], row["act_bits"]) == (8, 8)
    assert row["branches"] == 8 and row["shape"].endswith("branches=8")
    assert row["bit_operations"] == 8 * row["macs"]
    assert same(lib(x), net(x).detach().numpy())


def torch_sum(spelling):
    class Spelt(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(8, 6, 4, 3, 3))

        def forward(self, x):
            planes = (spelling(x, i) for i in range(8))
            signs = torch.sign(self.weight)
            return sum(
                2**i * functional.conv2d(p, signs[i], padding=1) for i, p in enumerate(planes)
            )

    torch.manual_seed(0)
    return Spelt().eval()


SPELLINGS = {
    "remainder": (lambda x, i: torch.remainder(torch.floor(x / 2**i), 2), torch.float32),
    "modulo": (lambda x, i: torch.floor(x * 2.0**-i) % 2, torch.float32),
    "int": (lambda x, i: ((x.int() >> i) & 1).float(), torch.float32),
    "long": (lambda x, i: ((x.long() >> i) & 1).to(x.dtype), torch.float32),
    "bytes": (lambda x, i: ((x >> i) & 1).float(), torch.uint8),
    "bytes as float": (lambda x, i: torch.remainder(torch.floor(x.float() / 2**i), 2), torch.uint8),
}


@pytest.mark.parametrize("spelling, dtype", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings_of_planes(spelling, dtype, same):
    net, x = torch_sum(spelling), image(dtype=dtype)
    lib = be.build(be.from_torch(net, (x,)))
    assert len(lib.report().to_dict()["layers"]) == 1
    assert same(lib(x), net(x).detach().numpy())


class SideBySide(torch.nn.Module):
    """One convolution of all planes: they are weighted before it, or its groups behind it."""

    def __init__(self, groups):
        super().__init__()
        self.groups = groups
        shape = (32, 4 // groups, 3, 3) if groups else (4, 32, 3, 3)
        self.weight = torch.nn.Parameter(torch.randn(shape))

    def forward(self, x):
        planes, signs = [((x >> i) & 1).float() for i in range(8)], torch.sign(self.weight)
        if not self.groups:
            weighted = [2.0**i * plane for i, plane in enumerate(planes)]
            return functional.conv2d(torch.cat(weighted, 1), signs)
        y = functional.conv2d(torch.cat(planes, 1), signs, groups=8 * self.groups)
        return (y.unflatten(1, (8, 4)) * (2.0 ** torch.arange(8)).reshape(8, 1, 1, 1)).sum(1)


class Stacked(torch.nn.Module):
    """Convolutions that are stacked, then summed."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(8, 4, 4, 3, 3))

    def forward(self, x):
        planes, signs = [((x >> i) & 1).float() for i in range(8)], torch.sign(self.weight)
        terms = [2**i * functional.conv2d(p, w) for i, (p, w) in enumerate(zip(planes, signs))]
        return torch.stack(terms).sum(0)


SUMS = {
    "weighted planes": lambda: SideBySide(0),
    "a group for each plane": lambda: SideBySide(1),
    "depthwise": lambda: SideBySide(4),
    "stacked": Stacked,
}


@pytest.mark.parametrize("make", SUMS.values(), ids=SUMS)
def test_spellings_of_sums(make, same):
    torch.manual_seed(0)
    net, x = make().eval(), image()
    lib = be.build(be.from_torch(net, (x,)))
    report = lib.report().to_dict()
    assert len(report["layers"]) == 1 and not report["float_layers"]
    assert same(lib(x), net(x).detach().numpy())


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 99),
    bits=st.integers(1, 8),
    strategy=st.sampled_from(["auto", *STRATEGIES]),
    window=st.sampled_from([dict(padding=1), dict(stride=2), dict(groups=2, padding=1)]),
)
def test_any_layer_under_any_strategy(same, seed, bits, strategy, window):
    net, x = layer(seed, bits=bits, **window).eval(), image(seed)
    net.out_scale.fill_(0.25)
    mod = be.from_torch(net, (x,))
    oracle = be.build(mod, pipeline=no_lowering)(x)
    assert same(be.build(mod, strategy=strategy)(x), oracle)
    assert same(oracle, net(x).detach().numpy())
