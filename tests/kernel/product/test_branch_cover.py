import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_bitenc.branches import outer
from tvm_bitenc.kernel.product.branch_cover import (
    OffsetSquare,
    Single,
    Square,
    cover,
)

SIDES = [(1,), (1, 2), (1, 2, 4), (1, 2, 4, 8), (1, 1), (1, 3), (2, 4), (2, 1), (1, 1, 2)]


def differing(counts, act, weight) -> int:
    """What the counts add up to for one product, whose planes are given as bits."""
    total = 0
    for count in counts:
        low = act[count.act] ^ weight[count.weight]
        if isinstance(count, Single):
            total += count.factor * low
            continue
        high = act[count.act + 1] ^ weight[count.weight + 1]
        if isinstance(count, OffsetSquare):
            x, y = (side[k] ^ side[k + 1] for side, k in ((act, count.act), (weight, count.weight)))
            mixed = 1 - y if high else x
            total += count.mixed // 2 * (y - x)
        else:
            mixed = act[count.act + 1] ^ weight[count.weight] if low == high else high
        total += count.low * low + count.high * high + count.mixed * mixed
    return total


def assert_covers(matrix, may_offset) -> None:
    counts, shape = cover(matrix, may_offset), np.shape(matrix)
    for act in itertools.product((0, 1), repeat=shape[1]):
        for weight in itertools.product((0, 1), repeat=shape[0]):
            branches = np.bitwise_xor.outer(weight, act) * matrix
            assert differing(counts, act, weight) == branches.sum()


@pytest.mark.parametrize("act_side", SIDES)
@pytest.mark.parametrize("weight_side", SIDES)
@pytest.mark.parametrize("may_offset", [False, True])
def test_counts_equal_the_sum_of_all_branches(act_side, weight_side, may_offset):
    assert_covers(outer(weight_side, act_side), may_offset)


MATRICES = st.integers(1, 4).flatmap(
    lambda acts: st.lists(st.lists(st.integers(-2, 4), min_size=acts, max_size=acts), min_size=1)
)


@given(MATRICES.filter(lambda matrix: len(matrix) <= 4), st.booleans())
def test_any_matrix_is_covered(matrix, may_offset):
    assert_covers(matrix, may_offset)


def test_two_by_two_planes_take_three_counts():
    assert cover(outer((1, 2), (1, 2))) == [Square(0, 0, high=2, low=3, mixed=4)]


def test_a_matrix_that_is_no_product_takes_all_counts():
    singles = [Single(0, 0, 1), Single(0, 1, 2), Single(1, 0, 2), Single(1, 1, 8)]
    assert cover([[1, 2], [2, 8]]) == singles
    assert cover([[1, 0], [0, 2]]) == [Single(0, 0, 1), Single(1, 1, 2)]


def test_offsets_leave_coefficients_that_are_shared():
    two, ternary = outer((1, 2), (1, 2)), outer((1, 1), (1, 1))
    assert cover(two, may_offset=True) == [OffsetSquare(0, 0, high=4, low=1, mixed=4)]
    assert cover(ternary, may_offset=True) == cover(ternary)


def test_ternary_values_take_two_counts():
    assert cover(outer((1, 1), (1, 1)))[0].factors == (2, 2)


def test_planes_left_over_are_counted_alone():
    counts = cover(outer((1, 2, 4), (1, 2, 4)))
    squares = [count for count in counts if isinstance(count, Square)]
    assert len(squares) == 1 and len(counts) == 6
