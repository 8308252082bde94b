"""Forms of codes: bytes that give the integers back, and sums that cost nothing where they can."""

import itertools

import numpy as np
import pytest

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.kernel.matmul.byte_form import fits_bytes, signed_form, unsigned_form

ENCODINGS = [
    *(kind(bits) for bits in range(1, 9) for kind in (Encoding.symmetric, Encoding.unsigned)),
    *(Encoding.signed(bits) for bits in range(1, 9)),
    *(Encoding(bits, 1.0, z / 2) for bits, z in itertools.product((1, 4, 8), (-999, -50, 77, 800))),
    Encoding.ternary(),
    Encoding(3, 1.0, 0.5, (1, 1, 3)),
    Encoding(8, 1.0, 0.0, (2, 2, 4, 8, 16, 32, 64, 127)),
]


def forms_of(encoding):
    coefficients, offset = encoding.integer_coefficients, int(encoding.offset)
    yield signed_form(coefficients, offset), (-128, 127)
    yield unsigned_form(coefficients, offset, 255), (0, 255)
    is_small = sum(coefficients) <= 127
    yield unsigned_form(coefficients, offset, 127), (0, 127) if is_small else (-128, 127)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: f"{e.bits} bits, {e.zero_point}")
def test_bytes_give_the_integers(encoding):
    codes = np.arange(2**encoding.bits)
    bits = codes[:, None] >> np.arange(encoding.bits) & 1
    levels = bits @ np.array(encoding.integer_coefficients)
    for form, (low, high) in forms_of(encoding):
        octets = form.multiple * levels + form.addend
        assert low <= octets.min() and octets.max() <= high
        assert np.abs(octets).max() == form.largest
        assert np.array_equal(form.factor * octets + form.rest, encoding.integers(codes))


def test_forms_without_a_rest_are_taken():
    for bits, kind in itertools.product(range(1, 9), (Encoding.symmetric, Encoding.signed)):
        (form, _), *_ = forms_of(kind(bits))
        has_rest = (bits, kind) == (8, Encoding.symmetric)  # Odd, from -255 to 255.
        assert (form.rest != 0) == has_rest


def test_coefficients_that_bytes_can_not_hold():
    assert fits_bytes((1, 2, 4)) and fits_bytes((2, 2, 4, 8, 16, 32, 64, 127))
    assert not fits_bytes((1, -2)) and not fits_bytes((2, 2, 4, 8, 16, 32, 64, 128))
