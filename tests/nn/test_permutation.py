"""Choosing n of N things, relaxed and hard, against N by N permutations and all choices."""

import itertools
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_bitenc.nn.permutation import assignment, gumbel_like, sinkhorn

SIZES = st.tuples(st.integers(1, 20), st.integers(0, 20), st.integers(0, 10**6))


def full_sinkhorn(logits, rounds):
    """Sinkhorn's operator on a square table: row by row, column by column, in numpy."""
    things, places = logits.shape
    table = np.exp(np.concatenate([logits, np.zeros((things, things - places))], 1))
    for _ in range(rounds):
        table /= table.sum(1, keepdims=True)
        table /= table.sum(0, keepdims=True)
    return table[:, :places]


@settings(deadline=None, max_examples=50)
@given(SIZES)
def test_one_column_stands_for_all_the_others(sizes):
    places, more, seed = sizes
    logits = np.random.default_rng(seed).normal(size=(places + more + 1, places)) * 3
    got = sinkhorn(torch.from_numpy(logits), rounds=7).numpy()
    assert np.allclose(got, full_sinkhorn(logits, 7), rtol=1e-9, atol=1e-12)


def test_its_gradient_is_that_of_small_differences():
    torch.manual_seed(0)
    logits = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: sinkhorn(x, 3), (logits,))


@pytest.mark.parametrize("spread", [1, 50, 1e3, 1e6])
def test_large_logits_have_a_gradient(spread):
    torch.manual_seed(0)
    logits = (torch.randn(512, 16) * spread).requires_grad_()
    relaxed = sinkhorn(logits)
    relaxed.square().sum().backward()
    assert relaxed.isfinite().all() and logits.grad.isfinite().all()


def test_it_goes_to_the_assignment():
    torch.manual_seed(0)
    logits = torch.randn(512, 16) * 50
    relaxed = sinkhorn(logits, 300)
    rows = assignment(logits.double().numpy())
    assert np.array_equal((relaxed > 0.5).nonzero()[:, 0].sort().values, np.sort(rows))
    assert (relaxed[rows, range(16)] > 0.5).all()


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 4), st.integers(0, 2), st.integers(0, 10**6), st.sampled_from([0, 1, 3]))
def test_assignment_is_the_best_of_all(places, more, seed, contested):
    random = np.random.default_rng(seed)
    gains = random.normal(size=(places + more, places))
    gains += contested * random.normal(size=(places + more, 1))  # All want the same rows.
    rows = assignment(gains)
    every = itertools.permutations(range(places + more), places)
    best = max(every, key=lambda chosen: gains[list(chosen), range(places)].sum())
    assert rows.tolist() == list(best)


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    assert assignment(np.eye(3)).tolist() == [0, 1, 2]
    with pytest.raises(ImportError, match=r"scipy: pip install 'tvm-bitenc\[torch\]'"):
        assignment(np.ones((3, 2)))


def test_gumbel_noise():
    torch.manual_seed(0)
    noise = gumbel_like(torch.empty(100_000))
    assert noise.isfinite().all()
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.02)
    assert float(noise.var()) == pytest.approx(np.pi**2 / 6, rel=0.03)
