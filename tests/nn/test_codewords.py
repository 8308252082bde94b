"""Codebooks, against the formulas of arXiv 2110.09195 and 2303.14470 written out in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_bitenc.nn.codewords import (
    LATENT_INTERVAL,
    LatentKernels,
    PermutedKernels,
    anneal_codebooks,
    kernel_numbers,
    kernels_of,
    most_frequent,
    nearest,
)
from tvm_bitenc.nn.permutation import sinkhorn


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_numbers_and_kernels():
    kernels = kernels_of(torch.arange(512), 9)
    assert torch.equal(kernel_numbers(kernels), torch.arange(512))
    assert kernels[5].tolist() == [1, -1, 1, -1, -1, -1, -1, -1, -1]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 64), st.integers(6, 9), st.integers(0, 10**6))
def test_nearest_is_the_least_distance(count, codewords, taps, seed):
    random = np.random.default_rng(seed)
    weight = random.normal(size=(count, taps)).astype(np.float32)
    kernels = random.choice(np.float32([-1, 1]), (codewords, taps))
    index = nearest(torch.from_numpy(weight), torch.from_numpy(kernels)).numpy()
    distances = ((weight[:, None].astype(np.float64) - kernels) ** 2).sum(2)
    assert np.allclose(distances[range(count), index], distances.min(1), rtol=1e-12)


def test_it_starts_from_the_most_frequent():
    numbers = torch.tensor([7, 7, 7, 300, 300, 12])
    got = kernel_numbers(most_frequent(kernels_of(numbers, 9) * torch.rand(6, 9), 16)).tolist()
    assert got[:3] == [7, 300, 12] and len(set(got)) == 16


def test_latent_kernels_keep_their_sign_near_0():
    choice = LatentKernels(16, 9)
    choice.start(torch.randn(50, 9))
    before = choice.kernels.clone()
    with torch.no_grad():
        choice.latent[0, 0] = -0.0009 * before[0, 0]
        choice.latent[0, 1] = -0.0010 * before[0, 1]
        choice.latent[0, 2] = 0
    before[0, 1] *= -1
    choice.settle()
    assert torch.equal(choice.kernels, before)


def test_latent_kernels_learn_in_some_steps_alone():
    """The gradient of a codeword is the sum of its kernels'; duplicates and outliers end there."""
    choice = LatentKernels(16, 9).train()
    choice.start(torch.randn(50, 9))
    index, cotangent = torch.randint(16, (40,)), torch.randn(40, 9)
    for step in range(1, 2 * LATENT_INTERVAL + 1):
        choice.latent.grad = None
        with torch.no_grad():
            choice.latent[3] = 1.1 * choice.latent[5]
            choice.latent[7] *= 1.5
        kernels = choice()
        assert torch.equal(kernels, choice.kernels)
        assert len(kernel_numbers(kernels).unique()) == 15
        if step % LATENT_INTERVAL:
            assert not kernels.requires_grad
            continue
        kernels[index].backward(cotangent)
        sums = torch.stack([cotangent[index == k].sum(0) for k in range(16)])
        torch.testing.assert_close(choice.latent.grad, sums)
        choice.settle()
        numbers = kernel_numbers(choice.kernels)
        assert len(numbers.unique()) == 16 and choice.latent.abs().max() == 3
        kept = [k for k in range(16) if k != 5]  # That was there already, as 3.
        assert torch.equal(choice.kernels[kept], kernels.detach()[kept])
    assert int(choice.steps) == step


def test_permuted_kernels_have_the_gradient_of_the_relaxed_ones():
    choice = PermutedKernels(16, 9).train()
    choice.start(torch.randn(50, 9))
    with torch.no_grad():
        choice.logits += torch.randn(512, 16)
    choice.temperature, cotangent = 2.0, torch.randn(16, 9)
    choice().backward(cotangent)
    logits = choice.logits.detach().requires_grad_()
    (sinkhorn(logits / 2).T @ kernels_of(torch.arange(512), 9)).backward(cotangent)
    torch.testing.assert_close(choice.logits.grad, logits.grad)


def test_permuted_kernels_are_those_of_the_largest_logits():
    choice = PermutedKernels(16, 9)
    with torch.no_grad():
        choice.logits[torch.arange(100, 116), torch.arange(16)] = 1
        choice.logits[200] = 2  # All columns want this one; the last can best do without its own.
        choice.logits[115, 15] = 0.5
    choice.settle()
    got = kernel_numbers(choice.kernels).tolist()
    assert got == [*range(100, 115), 200]


def test_noise_is_for_training_alone():
    choice = PermutedKernels(16, 9).train()
    anneal_codebooks(choice, 0.0)
    assert (choice.temperature, choice.noise) == (3, 0.3)
    choice.noise = 10.0
    assert not torch.equal(choice().detach(), choice().detach())
    choice.settle()
    settled = choice.kernels
    choice.settle()
    assert torch.equal(settled, choice.kernels)
    anneal_codebooks(choice, 1.0)
    assert (choice.temperature, choice.noise) == (1, 0)
    assert torch.equal(choice().detach(), settled)
