"""Weights that are quantized by their values, whoever made them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.transform.analysis.values import encoding_of_values, multiples_of

f32 = np.float32
rng = np.random.default_rng(0)
scales = st.floats(2.0**-20, 2.0**20, width=32)


def weights(channels=4, size=40):
    return rng.standard_normal((channels, size)).astype(f32)


def alpha(channels=4):
    return rng.uniform(0.1, 2, (channels, 1)).astype(f32)


@given(
    bits=st.integers(1, 8),
    kind=st.sampled_from(["symmetric", "signed", "unsigned"]),
    scale=st.lists(scales, min_size=3, max_size=3),
    seed=st.integers(0, 99),
)
def test_any_quantized_weight_is_found_again(bits, kind, scale, seed):
    """Not always its own encoding: of codes that are all even, half as many do."""
    encoding = getattr(Encoding, kind)(bits, f32(scale))
    codes = np.random.default_rng(seed).integers(0, 2**bits, (3, 2 ** (bits + 3)), np.uint8)
    values = encoding.dequantize(codes)
    found = encoding_of_values(values, 0)
    again = found.dequantize(found.quantize(values))
    assert found.bits <= bits
    assert np.all(np.abs(again - values) <= 2.0**-22 * np.abs(values).max(axis=1, keepdims=True))


@given(values=arrays(f32, (2, 64), elements=st.integers(-3, 3).map(f32)))
def test_small_integers_lose_nothing(values):
    found = encoding_of_values(values, 0)
    assert found is not None and found.bits <= 3
    assert np.array_equal(found.dequantize(found.quantize(values)), values)


FOUND = {
    "alpha * sign(w)": (1, lambda: alpha() * np.sign(weights())),
    "one alpha": (1, lambda: f32(0.37) * np.sign(weights())),
    "0 and alpha": (1, lambda: alpha() * (weights() > 0)),
    "ternary": (2, lambda: alpha() * np.rint(weights().clip(-1, 1))),
    "a channel of zeros among signs": (
        2,
        lambda: np.where(np.arange(4)[:, None] == 1, f32(0), alpha() * np.sign(weights())),
    ),
    "integers": (4, lambda: rng.integers(-7, 8, (4, 40)).astype(f32)),
    "4 bits, by a division": (4, lambda: rng.integers(-7, 8, (4, 40)).astype(f32) / f32(7.3)),
    "nothing but zeros": (1, lambda: np.zeros((4, 40), f32)),
    "one value": (1, lambda: np.full((4, 40), f32(0.1))),
    "a blur": (2, lambda: np.tile(f32([1, 2, 1, 2, 4, 2, 1, 2, 1]) / 16, (4, 1))),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_is_found(name):
    bits, make = FOUND[name]
    values = make().astype(f32)
    found = encoding_of_values(values, 0)
    assert found.bits == bits
    assert np.allclose(found.dequantize(found.quantize(values)), values, rtol=2.0**-22, atol=0)
    assert found.is_per_channel == (len(np.unique(np.abs(values).max(axis=1))) > 1)
    transposed = encoding_of_values(np.ascontiguousarray(values.T), 1)
    assert np.array_equal(transposed.scale, found.scale)


NOT_FOUND = {
    "floats": weights,
    "two unrelated values": lambda: np.where(weights() > 0, f32(0.3), f32(-0.777)),
    "levels of no one distance": lambda: f32([0, 1, np.pi])[rng.integers(0, 3, (4, 40))],
    "more levels than 8 bits have": lambda: rng.integers(-300, 300, (4, 4000)),
    "one channel of floats": lambda: np.concatenate([np.sign(weights()), weights(1)]),
    "few weights": lambda: f32([[1, 2], [3, 4]]),
    "one weight a channel": lambda: np.ones((40, 1)),
    "NaN": lambda: np.where(weights() > 0, f32("nan"), f32(1)),
    "infinity": lambda: np.where(weights() > 0, f32("inf"), f32(1)),
    "nothing": lambda: np.zeros((4, 0)),
}


@pytest.mark.parametrize("name", NOT_FOUND)
def test_what_is_not(name):
    assert encoding_of_values(NOT_FOUND[name]().astype(f32), 0) is None


def test_levels_that_no_weight_has():
    step, multiples = multiples_of(np.array([-3.0, 1.0, 4.0]) * 0.3)
    assert np.isclose(step, 0.3) and multiples.tolist() == [-3, 1, 4]


@pytest.mark.parametrize("values", [[], [0.0]], ids=["none", "zero"])
def test_multiples_of_nothing(values):
    step, multiples = multiples_of(np.array(values))
    assert step == 0 and multiples.tolist() == [0] * len(values)
