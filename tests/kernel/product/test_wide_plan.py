"""Plans of loops over wide tables: when bytes are widened, and who shares a table."""

import itertools

import pytest

from tests.kernel.cases import layer_of
from tvm_bitenc.kernel.nest.tile import Tile
from tvm_bitenc.kernel.product.lut_plan import MAX_ENTRY_SUM, MAX_PAIR_SUM, Level
from tvm_bitenc.kernel.product.wide_lut import WideLut
from tvm_bitenc.kernel.product.wide_plan import (
    MAX_UNROLL,
    has_far_tables,
    largest_entry,
    planes_at_once,
    tables_of,
    wide_plan,
)
from tvm_bitenc.schedule import avx512
from tvm_bitenc.target import load_target

ISA = avx512.isa_of(load_target("znver4"))
TILE = Tile(7, 1)
MOST_CHANNELS = 1024


def until(level, plan, per_chunk):
    """Look-ups that are summed until the end of a loop."""
    of_tap = plan.chunks * plan.size + plan.rest
    rows, columns = plan.window
    taps = {Level.TAP: 1, Level.ROW: columns, Level.PLANE: rows * columns}
    return per_chunk if level is Level.CHUNK else of_tap * taps[level]


@pytest.mark.parametrize("unroll", [0, 4])
@pytest.mark.parametrize("bits", [*itertools.product(range(1, 5), range(1, 5))])
def test_sums_are_widened_before_they_overflow(bits, unroll):
    tried = set()
    for channels in (3, 64, 130, 384, MOST_CHANNELS):
        layer = layer_of(bits, channels)
        entry = largest_entry(layer)
        if not WideLut.applies(layer, ISA):
            assert tables_of(layer) * entry * sum(layer.geometry.weight_coefficients) > MAX_PAIR_SUM
            continue
        product = WideLut(layer, ISA, TILE)
        plan = wide_plan(layer, product.is_narrow, Tile(7, 1, unroll=unroll))
        taps = layer.kernel_size[0] * layer.kernel_size[1]
        of_tap = plan.chunks * plan.size + plan.rest
        assert of_tap * plan.window[0] * plan.window[1] == taps * tables_of(layer)
        assert plan.size <= (unroll or MAX_UNROLL)
        assert until(plan.widen, plan, plan.size) * entry <= MAX_ENTRY_SUM
        term = entry * sum(layer.geometry.weight_coefficients)
        if plan.flush is None:
            assert product.terms.high <= MAX_PAIR_SUM
        else:
            assert until(plan.flush, plan, None) * term <= MAX_PAIR_SUM
        assert not (plan.is_blocked and plan.flush is Level.TAP)
        tried.add(plan.widen)
    assert Level.CHUNK in tried


def test_far_tables_are_looked_into_chunk_by_chunk():
    near, far = (layer_of((1, 2), channels, size=7) for channels in (64, 512))
    assert not wide_plan(near, True, TILE).is_blocked and wide_plan(far, True, TILE).is_blocked


@pytest.mark.parametrize(
    "channels, kernel, planes",
    [(64, (3, 3), 2), (512, (3, 3), 2), (512, (1, 1), 1), (768, (1, 1), 4), (768, (1, 3), 4)],
)
def test_who_shares_a_table(channels, kernel, planes):
    layer = layer_of((1, 2), channels, kernel=kernel)
    assert planes_at_once(layer) == planes
    assert has_far_tables(layer) is (planes == 4)
