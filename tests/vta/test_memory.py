"""Addresses of tensors: those that live at one time lie apart."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tvm_bitenc.vta.memory import Lifetime, plan

SPANS = st.tuples(st.integers(1, 9), st.integers(-1, 8), st.integers(0, 5))


@given(spans=st.lists(SPANS, max_size=12))
def test_no_tensor_overwrites_another(spans):
    lives = [
        Lifetime(str(i), words, first, first + length)
        for i, (words, first, length) in enumerate(spans)
    ]
    addresses, size = plan(lives)
    assert size == max((addresses[x.name] + x.words for x in lives), default=0)
    for a, b in itertools.combinations(lives, 2):
        if a.first <= b.last and b.first <= a.last:
            (low, first), (high, _) = sorted(
                [(addresses[a.name], a.words), (addresses[b.name], b.words)]
            )
            assert low + first <= high


def test_what_lives_at_different_times_shares():
    chain = [Lifetime(str(i), 10, i - 1, i) for i in range(6)]
    addresses, size = plan(chain)
    assert size == 20 and sorted(set(addresses.values())) == [0, 10]
