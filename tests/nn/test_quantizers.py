import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tvm_bitenc.nn import hard_relu, hard_tanh, mbn, mbn_planes, q_k

ALL_BITS = range(1, 9)


def position(x, bits):
    """(2^k - 1)(x + 1) / 2 in float64: the code before rounding."""
    return (2**bits - 1) * (np.float64(x) + 1) / 2


def samples(bits, margin=0.01):
    """Float32 points of [-1, 1] that are at least `margin` codes away from a tie."""
    x = torch.linspace(-1, 1, 4001)
    to_tie = np.abs(position(x.numpy(), bits) % 1 - 0.5)
    return x[torch.from_numpy(to_tie > margin)]


@pytest.mark.parametrize("clip, low", [(hard_tanh, -1), (hard_relu, 0)])
def test_clips(clip, low):
    x = torch.tensor([-2.0, low, 0.5, 1.0, 2.0], requires_grad=True)
    y = clip(x)
    y.sum().backward()
    assert y.tolist() == [low, low, 0.5, 1, 1]
    assert x.grad.tolist() == [0, 1, 1, 1, 0]
    assert clip(torch.tensor([-9.0, 9.0]), 4.0).tolist() == [4 * low, 4]


@pytest.mark.parametrize("bits", ALL_BITS)
def test_q_k_is_the_papers_formula(bits):
    x = samples(bits)
    expected = 2 * (np.round(position(x.numpy(), bits)) / (2**bits - 1) - 0.5)
    np.testing.assert_allclose(q_k(x, bits).numpy(), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_q_k_has_2_to_the_k_odd_levels(bits):
    levels = q_k(torch.linspace(-2, 2, 4001), bits).unique() * (2**bits - 1)
    assert_close(levels, torch.arange(-(2.0**bits) + 1, 2**bits, 2))


def test_q_k_of_zero_and_its_gradient():
    x = torch.tensor([-1.5, -1.0, 0.0, 0.3, 1.0, 1.5], requires_grad=True)
    assert q_k(x, 1).tolist() == [-1, -1, 1, 1, 1, 1]
    for bits in ALL_BITS:
        (grad,) = torch.autograd.grad(q_k(x, bits).sum(), x)
        assert_close(grad, torch.tensor([0.0, 1, 1, 1, 1, 0]))


@pytest.mark.parametrize("bits", ALL_BITS)
def test_mbn_planes_are_the_binary_digits_of_the_code(bits):
    x = samples(bits)
    code = np.round(position(x.numpy(), bits)).astype(int)
    planes = mbn_planes(x, bits)
    assert len(planes) == bits
    for m, plane in enumerate(planes):
        np.testing.assert_array_equal(plane.numpy(), 2 * ((code >> m) & 1) - 1)


def test_mbn_planes_of_2_bits_are_the_papers_closed_forms():
    x = samples(2)
    low, high = mbn_planes(x, 2)
    assert torch.equal(high, torch.sign(torch.sin(0.75 * torch.pi * x)))
    assert torch.equal(low, torch.sign(-torch.sin(1.5 * torch.pi * x)))


@pytest.mark.parametrize("bits", ALL_BITS)
def test_mbn_equals_q_k_away_from_ties(bits):
    x = samples(bits)
    assert torch.equal(mbn(x, bits), q_k(x, bits))


@pytest.mark.parametrize("bits", ALL_BITS)
def test_mbn_gradient_is_the_cosine_sum(bits):
    x = torch.linspace(-1, 1, 101, requires_grad=True)
    mbn(x, bits).sum().backward()
    t = position(x.detach().numpy(), bits) + 0.5
    expected = -np.pi / 2 * sum(np.cos(np.pi * t / 2**m) for m in range(bits))
    np.testing.assert_allclose(x.grad.numpy(), expected, atol=1e-3)


def test_planes_at_a_boundary_are_still_signs():
    for plane in mbn_planes(torch.tensor([-1 / 3, 0.0, 1 / 3]), 2):
        assert set(plane.abs().tolist()) == {1.0}
    assert mbn(torch.tensor([0.0]), 1).tolist() == [1]


@pytest.mark.parametrize("bits", [0, 9])
@pytest.mark.parametrize("quantizer", [q_k, mbn, mbn_planes])
def test_errors(quantizer, bits):
    with pytest.raises(ValueError, match="1 to 8 bits"):
        quantizer(torch.zeros(1), bits)
