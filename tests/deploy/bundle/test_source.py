"""Templates of a bundle."""

import pytest

from tvm_bitenc.deploy.bundle.source import render


def test_values_are_filled_in():
    text = render("net_weights.S.in", net="other", alignment=64)
    assert '.incbin "other_weights.bin"' in text and "@" not in text


def test_a_value_that_is_missing_is_no_text():
    with pytest.raises(KeyError):
        render("net_weights.S.in", net="other")
