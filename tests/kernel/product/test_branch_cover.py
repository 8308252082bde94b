import itertools

import numpy as np
import pytest

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


@pytest.mark.parametrize("act_side", SIDES)
@pytest.mark.parametrize("weight_side", SIDES)
@pytest.mark.parametrize("may_offset", [False, True])
def test_counts_equal_the_sum_of_all_branches(act_side, weight_side, may_offset):
    counts = cover(act_side, weight_side, may_offset)
    for act in itertools.product((0, 1), repeat=len(act_side)):
        for weight in itertools.product((0, 1), repeat=len(weight_side)):
            branches = np.bitwise_xor.outer(act, weight) * np.multiply.outer(act_side, weight_side)
            assert differing(counts, act, weight) == branches.sum()


def test_two_by_two_planes_take_three_counts():
    assert cover((1, 2), (1, 2)) == [Square(0, 0, high=2, low=3, mixed=4)]


def test_offsets_leave_coefficients_that_are_shared():
    assert cover((1, 2), (1, 2), may_offset=True) == [OffsetSquare(0, 0, high=4, low=1, mixed=4)]
    assert cover((1, 1), (1, 1), may_offset=True) == cover((1, 1), (1, 1))


def test_ternary_values_take_two_counts():
    assert cover((1, 1), (1, 1))[0].factors == (2, 2)


def test_planes_left_over_are_counted_alone():
    counts = cover((1, 2, 4), (1, 2, 4))
    squares = [count for count in counts if isinstance(count, Square)]
    assert len(squares) == 1 and len(counts) == 6
