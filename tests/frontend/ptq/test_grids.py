"""Grids of least squared error: better than every neighbour, and the known best ones."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import BitencError
from tvm_bitenc.frontend.ptq.grids import Histogram, act_encoding, weight_encoding


def histogram_of(values):
    histogram = Histogram(float(values.min()), float(values.max()))
    histogram.add(values)
    return histogram


def error(encoding, values):
    return np.square(encoding.dequantize(encoding.quantize(values)) - values).mean()


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("kind", ["relu", "gauss", "shifted", "heavy"])
def test_no_range_nearby_is_much_better(bits, kind):
    random = np.random.default_rng(0)
    values = random.normal(size=20000).astype(np.float32)
    values = {
        "relu": np.maximum(values, 0),
        "gauss": values,
        "shifted": np.maximum(values, -0.375) * 3,
        "heavy": values**3,
    }[kind]
    encoding = act_encoding(histogram_of(values), bits)
    assert (encoding.zero_point == 0) == (kind == "relu")
    least = error(encoding, values)
    for factor in np.geomspace(0.25, 4, 41):
        for shift in (-1, 0, 1) if encoding.zero_point % 1 == 0 and encoding.zero_point else (0,):
            other = Encoding(bits, encoding.scale * factor, encoding.zero_point + shift)
            assert least <= 1.08 * error(other, values)


@pytest.mark.parametrize("bits, distortion", [(1, 0.3634), (2, 0.1188), (3, 0.03744)])
def test_gaussian_weights_reach_the_known_least_error(bits, distortion):
    """Max, "Quantizing for minimum distortion", 1960, table II."""
    weight = np.random.default_rng(1).normal(size=(3, 60000)).astype(np.float32)
    weight /= weight.std(axis=1, keepdims=True)
    factors = np.array([1, 0.01, 7], np.float32)
    encoding = weight_encoding(weight * factors[:, None], bits)
    assert encoding.zero_point == (2**bits - 1) / 2
    normal = Encoding(bits, encoding.scale / factors, encoding.zero_point)
    errors = np.square(normal.dequantize(normal.quantize(weight)) - weight).mean(axis=1)
    np.testing.assert_allclose(errors, distortion, rtol=0.03)


@pytest.mark.parametrize("bits", range(1, 9))
def test_no_scale_of_a_weight_is_much_better(bits):
    weight = np.random.default_rng(2).normal(size=(4, 576)).astype(np.float32)
    encoding = weight_encoding(weight, bits)

    def errors(scale):
        other = replace(encoding, scale=scale)
        return np.square(other.dequantize(other.quantize(weight)) - weight).mean(axis=1)

    least = np.min([errors(encoding.scale * f) for f in np.geomspace(0.5, 2, 301)], axis=0)
    assert (errors(encoding.scale) <= 1.1 * least).all()


@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_weights_on_symmetric_levels_stay_as_they_are(bits, seed):
    random = np.random.default_rng(seed)
    top = 254 if bits == 8 else 2**bits - 1
    codes = random.integers(0, top + 1, (3, 64)).astype(np.uint8)
    codes[:, :2] = 0, top
    exact = Encoding(bits, np.array([0.5, 2.0, 0.25], np.float32), top / 2)
    found = weight_encoding(exact.dequantize(codes), bits)
    assert np.array_equal(found.quantize(exact.dequantize(codes)), codes)
    np.testing.assert_allclose(found.scale, exact.scale, rtol=1e-6)


def test_zeros_have_a_grid():
    assert weight_encoding(np.zeros((2, 3), np.float32), 4).scale.min() > 0
    assert act_encoding(histogram_of(np.zeros(5, np.float32)), 4).scale > 0
    assert act_encoding(histogram_of(np.full(5, -3, np.float32)), 4).scale > 0


def test_values_after_a_relu_keep_their_zeros():
    values = np.concatenate([np.zeros(900), np.linspace(0, 10, 100)]).astype(np.float32)
    assert histogram_of(values).centres[0] == 0


def test_nan_in_a_weight_is_named():
    with pytest.raises(BitencError, match=r"layer 'stem'.*NaN"):
        weight_encoding(np.array([[1, np.nan]], np.float32), 2, "stem")
