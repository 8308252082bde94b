"""Planes of levels at any distances, and layers of such tensors under every strategy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.levels import Chain, chains_module
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.levels import codes_of_levels, encoding_of_levels, plane_coefficients
from tvm_bitenc.strategy import STRATEGIES

f32 = np.float32
few_levels = st.lists(st.integers(1, 40), min_size=1, max_size=8).map(
    lambda steps: [0, *np.cumsum(steps).tolist()]
)


@given(levels=few_levels)
def test_up_to_nine_levels_always_have_planes_and_rising_codes(levels):
    coefficients = plane_coefficients(levels)
    codes = codes_of_levels(levels, coefficients)
    bits = np.array(codes)[:, None] >> np.arange(len(coefficients)) & 1
    assert (bits @ coefficients).tolist() == levels
    assert np.all(np.diff(codes) > 0)
    assert len(coefficients) <= min(len(levels) - 1, levels[-1].bit_length())


@given(basis=st.lists(st.integers(1, 200), min_size=1, max_size=8))
def test_sums_of_up_to_eight_integers_have_planes(basis):
    """All 2^M of them, as a learned basis has, whatever planes they take."""
    sums = np.unique((np.arange(2 ** len(basis))[:, None] >> np.arange(len(basis)) & 1) @ basis)
    try:
        coefficients = plane_coefficients(sums.tolist())
    except UnsupportedError:  # Codes that rise with them need more planes.
        assert sums[-1] > 255 and len(sums) > 9
        return
    codes = np.array(codes_of_levels(sums.tolist(), coefficients))
    assert np.array_equal((codes[:, None] >> np.arange(len(coefficients)) & 1) @ coefficients, sums)


@pytest.mark.parametrize(
    "levels, coefficients, codes",
    [
        ([0, 1], (1,), (0, 1)),
        ([0, 1, 2, 3], (1, 2), (0, 1, 2, 3)),  # Binary planes before others of the same number.
        ([0, 3, 7, 12], (3, 4, 5), (0, 1, 3, 7)),
        ([0, 3, 8, 11], (3, 8), (0, 1, 2, 3)),  # A basis: sums of 3 and 8.
        ([0, 1, 3, 4, 9, 10, 12, 13], (1, 3, 9), (0, 1, 2, 3, 4, 5, 6, 7)),
        ([0, 300, 500, 501], (300, 200, 1), (0, 1, 3, 7)),
        ([0, 3, 4, 5, 7, 8, 9, 12], (1, 2, 4, 8), (0, 3, 4, 5, 7, 8, 9, 12)),  # 3, 4, 5 don't rise.
    ],
    ids=str,
)
def test_planes_by_hand(levels, coefficients, codes):
    assert plane_coefficients(levels) == coefficients
    assert codes_of_levels(levels, coefficients) == codes


def test_more_planes_than_eight_are_refused():
    message = "11 levels up to 1255 take 10 planes.*Use up to 9 levels"
    with pytest.raises(UnsupportedError, match=message):
        plane_coefficients([0, *(np.arange(1, 11) ** 3 + 255).tolist()])


@given(levels=few_levels, seed=st.integers(0, 99))
def test_codes_count_the_bounds_that_are_reached(levels, seed):
    rng = np.random.default_rng(seed)
    bounds = np.sort(rng.choice(64, len(levels) - 1, replace=False)).astype(f32) / 8
    encoding = encoding_of_levels(levels, bounds.tolist(), 0.5, 2.5)
    x = np.concatenate([rng.normal(4, 4, 50), bounds, [-np.inf, np.inf, np.nan]]).astype(f32)
    expected = np.array(levels)[(x[:, None] >= bounds).sum(1)]
    codes = encoding.quantize(x)
    assert np.array_equal(encoding.dequantize(codes), f32(0.5) * (f32(expected) - f32(2.5)))
    assert np.array_equal(encoding.integers(codes), 2 * expected - 5)
    assert encoding.has_rising_codes and set(codes) <= set(encoding.codes)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(bounds=[1.0]), "1 bounds between codes"),
        (dict(codes=(0, 1, 8)), "between codes .0, 1, 8."),
        (dict(codes=(0, 3, 1)), "don't rise"),
        (dict(bounds=[2.0, 1.0]), "don't rise"),
        (dict(bounds=[1.0, np.nan]), "aren't finite"),
        (dict(bounds=[1.0, np.inf]), "aren't finite"),
        (dict(scale=[1.0, 2.0]), "scales per channel"),
    ],
)
def test_levels_that_are_refused(changes, message):
    arguments = dict(bits=2, scale=1.0, zero_point=0.0, coefficients=(3, 4), codes=(0, 1, 3))
    with pytest.raises(UnsupportedError, match=message):
        Encoding(**{**arguments, "bounds": [1.0, 2.0], **changes})


def assert_chains_exact(seeds, module_of, outputs_of, same, **options):
    chains = [Chain(seed) for seed in seeds]
    mod = chains_module(chains, module_of)
    found = outputs_of(mod, [chain.x for chain in chains], **options)
    wrong = [seed for seed, c, y in zip(seeds, chains, found) if not same(y, c.reference())]
    assert not wrong


@pytest.mark.sweep(4)
@pytest.mark.parametrize("seed", range(0, 40, 2))
@pytest.mark.parametrize("strategy", ["auto", *STRATEGIES])
def test_layers_of_levels(strategy, seed, module_of, outputs_of, same):
    seeds = range(seed, seed + 2)
    assert_chains_exact(seeds, module_of, outputs_of, same, strategy=strategy)


def test_the_module_without_passes_is_the_oracle(module_of, outputs_of, only, same):
    assert_chains_exact([1, 2], module_of, outputs_of, same, pipeline=only())
