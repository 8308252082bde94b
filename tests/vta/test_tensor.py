"""Views of tensors: which words they show, and how the CPU takes them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tvm_bitenc.encoding import pack, unpack
from tvm_bitenc.vta.tensor import (
    Tensor,
    copied,
    in_turns,
    packed_densely,
    side_by_side,
    whole,
)


def tensor(name, words=1):
    return Tensor(name, 4, 6, 2, words)


@given(channels=st.lists(st.integers(1, 150), min_size=1, max_size=4), data=st.data())
def test_gaps_are_closed(channels, data):
    views = [whole(tensor(str(i), -(-n // 64)), n) for i, n in enumerate(channels)]
    view = side_by_side(views)
    seed = data.draw(st.integers(0, 99))
    codes = np.random.default_rng(seed).integers(0, 4, (3, sum(channels))).astype(np.uint8)
    parts = np.split(codes, np.cumsum(channels)[:-1], axis=1)
    planes = np.concatenate([pack(part, 2) for part in parts], axis=-1)
    dense = packed_densely(planes, view.layout)
    assert np.array_equal(dense, pack(codes, 2))
    assert np.array_equal(unpack(dense, sum(channels)), codes)
    assert view.is_dense == all(count % 64 == 0 for count in channels[:-1])
    assert view.words == sum(segment.words for segment in view.segments)


def test_upsampling_of_parts_in_turns():
    parts = [whole(tensor(name), 9) for name in "abcd"]
    view = in_turns(parts, (2, 2)).repeated(2, axis=1)
    names = [[each.name for each in row] for row in view.segments[0].grid]
    assert names == [["a", "a", "b", "b"], ["c", "c", "d", "d"]]
    assert view.tensor is None and not view.is_plain and len({x for row in names for x in row}) == 4


def test_only_a_whole_tensor_is_one():
    view = whole(tensor("a", 3), 130)
    assert view.tensor == tensor("a", 3) and view.with_channels(100).channels == 100
    assert side_by_side([view, view]).tensor is None
    joined = side_by_side([view, whole(tensor("b"), 20)])
    moved = copied(joined, tensor("c", 4))
    assert [each.first_word for each in moved.segments] == [0, 3] and moved.tensor is None
    assert np.array_equal(moved.positions, joined.positions)
