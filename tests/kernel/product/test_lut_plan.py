"""How planes share tables, and where looked-up sums are widened: late, and never too late."""

import itertools

import pytest

from tvm_bitenc.kernel.product.lut_plan import (
    GROUP,
    MAX_ENTRY_SUM,
    MAX_PAIR_SUM,
    Level,
    loop_plan,
    parts_of,
)


@pytest.mark.parametrize("groups", [4, 32, 128, 1024])
@pytest.mark.parametrize("bits", range(1, 9))
def test_parts_cover_every_plane_and_fit(bits, groups):
    coefficients = [2**b for b in range(bits)]
    parts = parts_of(coefficients, groups)
    assert [k for part in parts for k in part.planes] == list(range(bits))
    assert [part.factor * c for part in parts for c in part.coefficients] == coefficients
    for part in parts:
        assert part.most == GROUP * sum(part.coefficients)
        assert 2 * part.most <= MAX_ENTRY_SUM and part.most * groups <= MAX_PAIR_SUM


def test_few_bits_share_one_table():
    assert len(parts_of([1, 2, 4, 8], 16)) == 1 and len(parts_of([1, 2, 4, 8, 16, 32], 16)) == 2


def lookups_until(level, plan, lookups, kernel_size):
    """Look-ups of one weight plane that are summed until the end of a loop."""
    return {
        Level.CHUNK: plan.steps * plan.unrolled,
        Level.TAP: lookups,
        Level.ROW: lookups * kernel_size[1],
        Level.PLANE: lookups * kernel_size[0] * kernel_size[1],
    }[level]


OUTER = {Level.CHUNK: Level.TAP, Level.TAP: Level.ROW, Level.ROW: Level.PLANE}


def check_late(level, most, limit, plan, lookups, kernel_size):
    """Sums fit until the end of a loop, and wouldn't until that of the next."""
    assert lookups_until(level, plan, lookups, kernel_size) * most <= limit
    if level is not Level.PLANE:
        assert lookups_until(OUTER[level], plan, lookups, kernel_size) * most > limit


@pytest.mark.parametrize("unroll", [0, 2, 16])
@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.parametrize("kernel_size", [(1, 1), (1, 3), (3, 3), (7, 7)])
def test_sums_are_widened_as_late_as_they_fit(kernel_size, slots, unroll):
    for bits, lookups in itertools.product(range(1, 9), (2, 4, 6, 32, 130)):
        for part in parts_of([2**b for b in range(bits)], lookups * slots):
            plan = loop_plan(part, lookups, slots, kernel_size, False, unroll)
            assert plan.chunks * plan.steps * plan.unrolled == lookups
            assert plan.unrolled % 2 == 0 and plan.unrolled <= (unroll or 8)
            loops = plan, lookups, kernel_size
            check_late(plan.widen, part.most, MAX_ENTRY_SUM, *loops)
            check_late(plan.flush, slots * part.most, MAX_PAIR_SUM, *loops)


def test_whole_sums_of_16_bits_are_never_flushed():
    (part,) = parts_of([1, 2], 32)
    assert loop_plan(part, 8, 4, (3, 3), True, 0).flush is None
