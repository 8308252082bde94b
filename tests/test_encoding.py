"""Codes, planes and words, against definitions written out by hand."""

import warnings

import numpy as np
import pytest

from tvm_bitenc.encoding import Encoding, are_powers_of_two, pack, planes, unpack
from tvm_bitenc.errors import BitencError, UnsupportedError
from tvm_bitenc.rounding import ROUND

rng = np.random.default_rng(0)
KINDS = (Encoding.symmetric, Encoding.unsigned, Encoding.signed)


@pytest.mark.parametrize("bits", range(1, 9))
def test_levels_of_the_three_kinds(bits):
    codes = np.arange(2**bits, dtype=np.uint8)
    top = 2**bits - 1
    symmetric = Encoding.symmetric(bits, 2.0).dequantize(codes)
    assert symmetric.tolist() == list(range(-top, top + 1, 2))
    assert Encoding.unsigned(bits, 0.5).dequantize(codes).tolist() == (codes / 2).tolist()
    low = -(2 ** (bits - 1))
    assert Encoding.signed(bits).dequantize(codes).tolist() == list(range(low, low + 2**bits))


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("kind", KINDS)
def test_codes_of_levels(kind, bits):
    encoding = kind(bits, 0.3)
    codes = np.arange(2**bits, dtype=np.uint8)
    assert np.array_equal(encoding.quantize(encoding.dequantize(codes)), codes)
    assert np.array_equal(encoding.integers(codes), np.rint(2 * encoding.dequantize(codes) / 0.3))


@pytest.mark.parametrize("bits", range(1, 9))
def test_planes_add_up(bits):
    codes = rng.integers(0, 2**bits, 50, dtype=np.uint8)
    weighted = sum(2**m * plane.astype(int) for m, plane in enumerate(planes(codes, bits)))
    assert np.array_equal(weighted, 2 * codes.astype(int) - (2**bits - 1))
    assert np.array_equal(Encoding.unsigned(bits).bipolar(codes), weighted)


def test_rounding_is_half_to_even_and_saturates():
    x = np.array([-9, -0.5, 0.5, 1.5, 2.5, 3.5, 99, -np.inf, np.inf], np.float32)
    assert Encoding.unsigned(2).quantize(x).tolist() == [0, 0, 0, 2, 2, 3, 3, 0, 3]


def test_every_rounding_by_hand():
    x = np.array([-1.5, -1.25, -0.5, -0.25, 0.25, 0.5, 1.25, 1.5], np.float32)
    expected = {
        "half_even": [-2, -1, 0, 0, 0, 0, 1, 2],
        "floor": [-2, -2, -1, -1, 0, 0, 1, 1],
        "ceil": [-1, -1, 0, 0, 1, 1, 2, 2],
        "toward_zero": [-1, -1, 0, 0, 0, 0, 1, 1],
        "away_from_zero": [-2, -2, -1, -1, 1, 1, 2, 2],
        "half_away_from_zero": [-2, -1, -1, 0, 0, 1, 1, 2],
        "half_toward_zero": [-1, -1, 0, 0, 0, 0, 1, 1],
    }
    assert set(expected) == set(ROUND)
    for rounding, values in expected.items():
        encoding = Encoding(3, 2.0, 4.0, rounding=rounding, late_zero_point=4)
        assert (encoding.quantize(2 * x).astype(int) - 4).tolist() == values, rounding


def test_when_the_zero_point_is_added_decides_ties():
    just_above = np.float32([0.5000001])  # Plus 128 that is a tie in float32, alone it isn't.
    early, late = (Encoding(8, 1.0, 128.0, late_zero_point=z) for z in (0, 128))
    assert early.quantize(just_above) == 128 and late.quantize(just_above) == 129
    half = np.float32([0.5])  # Ties to even: before or after an odd number is added.
    early, late = (Encoding(2, 1.0, 1.0, late_zero_point=z) for z in (0, 1))
    assert early.quantize(half) == 2 and late.quantize(half) == 1


def test_a_narrow_range_leaves_out_the_largest_code():
    x = np.array([-9, -1, 0, 1, 9], np.float32)
    assert Encoding(2, 1.0, 1.0, max_code=2).quantize(x).tolist() == [0, 0, 1, 2, 2]
    assert Encoding(2, 1.0, 1.0).max_code == 3


def test_sign_of_zero():
    x = np.array([-1e-38, -0.0, 0.0, 1e-38], np.float32)
    assert Encoding.symmetric(1).quantize(x).tolist() == [0, 1, 1, 1]
    assert Encoding.symmetric(1, rounding="half_even").quantize(x).tolist() == [0, 0, 0, 0]


def test_per_channel_equals_channel_by_channel():
    scale, zero = np.array([0.5, 2.0, 0.1]), np.array([0, 1.5, 3])
    encoding, x = Encoding(3, scale, zero), rng.normal(size=(4, 3, 5)).astype(np.float32)
    codes = encoding.quantize(x, axis=1)
    values = encoding.dequantize(codes, axis=1)
    for c in range(3):
        one = Encoding(3, scale[c], zero[c])
        assert np.array_equal(codes[:, c], one.quantize(x[:, c]))
        assert np.array_equal(values[:, c], one.dequantize(codes[:, c]))


def test_ternary_has_two_codes_for_zero():
    ternary = Encoding.ternary(0.5)
    assert ternary.dequantize(np.arange(4, dtype=np.uint8)).tolist() == [-0.5, 0, 0, 0.5]
    x = np.array([-9, -0.26, -0.24, 0, 0.24, 0.26, 9], np.float32)
    assert ternary.dequantize(ternary.quantize(x)).tolist() == [-0.5, -0.5, 0, 0, 0, 0.5, 0.5]
    assert ternary.offset == 0


@pytest.mark.parametrize(
    "encoding, code",
    [
        (Encoding.unsigned(3), 0),
        (Encoding.signed(3), 4),
        (Encoding.symmetric(3), None),
        (Encoding.ternary(), 1),
        (Encoding(2, 1.0, 7.0), None),
        (Encoding(2, 1.0, [1.0, 1.0]), 1),
        (Encoding(2, 1.0, [1.0, 2.0]), None),
    ],
)
def test_code_of_zero(encoding, code):
    assert encoding.zero_code() == code


@pytest.mark.parametrize("channels, groups", [(1, 1), (64, 1), (65, 1), (130, 2), (12, 4), (9, 9)])
@pytest.mark.parametrize("bits", [1, 3, 8])
def test_pack_and_unpack(bits, channels, groups):
    codes = rng.integers(0, 2**bits, (2, 3, channels), dtype=np.uint8)
    words = pack(codes, bits, groups)
    assert words.shape == (2, 3, bits, groups * -(-channels // groups // 64))
    assert np.array_equal(unpack(words, channels, groups), codes)


def test_channel_64_i_plus_j_is_bit_j_of_word_i():
    codes = np.zeros((1, 130), np.uint8)
    codes[0, [0, 63, 129]] = [1, 2, 3]  # 129 is channel 64 of the second group of 65
    assert pack(codes, 2).tolist() == [[[1, 0, 2], [1 << 63, 0, 2]]]
    assert pack(codes, 2, groups=2).tolist() == [[[1, 0, 0, 1], [1 << 63, 0, 0, 1]]]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(bits=0), "1 to 8 bits"),
        (dict(bits=9), "1 to 8 bits"),
        (dict(bits=2.5), "1 to 8 bits"),
        (dict(bits=True), "1 to 8 bits"),
        (dict(scale=0.0), "s > 0"),
        (dict(scale=-1.0), "s > 0"),
        (dict(scale=[1.0, np.inf]), "s > 0"),
        (dict(scale=np.nan), "s > 0"),
        (dict(zero_point=0.3), "1/2"),
        (dict(zero_point=np.nan), "1/2"),
        (dict(zero_point=1e6), "code range"),
        (dict(coefficients=(1, 2, 4)), "one per plane"),
        (dict(rounding="stochastic"), "half_even"),
        (dict(rounding="sign"), "half_even"),
        (dict(max_code=4), "largest code 4 at 2 bits"),
        (dict(max_code=1), "as many bits as it has"),
        (dict(max_code=2, coefficients=(1, 1)), "powers of two"),
        (dict(late_zero_point=1, coefficients=(1, 1)), "powers of two"),
        (dict(rounding="floor", coefficients=(1, 1)), "powers of two"),
    ],
)
def test_errors_name_the_cure(arguments, message):
    with pytest.raises(BitencError, match=message):
        Encoding(**(dict(bits=2, scale=1.0, zero_point=0.0) | arguments))


def test_real_coefficients_have_no_integers():
    encoding = Encoding(2, 1.0, 0.0, (0.7, 1.9))
    assert encoding.dequantize(encoding.quantize(np.float32([2.5]))).tolist() == [np.float32(2.6)]
    with pytest.raises(UnsupportedError, match="common factor"):
        encoding.integers(np.zeros(3, np.uint8))


def test_quantizing_beyond_float32_clips_without_a_warning():
    encoding = Encoding.signed(2, 1e-20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codes = encoding.quantize(np.float32([-3e38, 0, 3e38]))
    assert codes.tolist() == [0, 2, 3]


@pytest.mark.parametrize("rounding", ["half_even", "floor", "half_away_from_zero", "sign"])
def test_a_number_without_axes_has_a_code(rounding):
    bits = 1 if rounding == "sign" else 3
    encoding = Encoding(bits, 0.5, 1.5, rounding=rounding)
    for value in (-9.0, 0.0, 0.6, 1.3, 9.0, np.nan):
        (expected,) = encoding.quantize(np.array([value], np.float32))
        found = encoding.quantize(np.float32(value))
        assert found.shape == () and found.dtype == np.uint8 and found == expected
    assert Encoding.ternary().quantize(np.float32(1)).shape == ()


def test_packing_does_not_depend_on_the_memory_layout():
    codes = np.array([0, 1, 1, 0], np.uint8).reshape(1, 2, 1, 2)
    moved = np.moveaxis(codes, 1, -1)
    assert pack(moved, 1).tolist() == pack(np.ascontiguousarray(moved), 1).tolist()


def test_powers_of_two():
    """Zero is none: dividing by it isn't exact."""
    assert are_powers_of_two(np.float32([1, 0.25, -4, 2.0**-149])) and are_powers_of_two(
        np.array(2)
    )
    for value in (0, 3, -0.3, np.inf, np.nan):
        assert not are_powers_of_two(np.float32([1, value]))
