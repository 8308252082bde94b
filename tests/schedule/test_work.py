"""The speed model: what is scarcest decides, and one function says what products take at best."""

from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

from tvm_bitenc.branches import BranchGeometry
from tvm_bitenc.layer import ConvLayer
from tvm_bitenc.schedule import best_macs, isa_of, strategy_costs
from tvm_bitenc.schedule.work import Work
from tvm_bitenc.target import Core, load_target

CORE = Core(issue=4, vector=2, count=1, lookup=1, product=2)


@pytest.mark.parametrize(
    "work, cycles",
    [
        (Work(other=8), 2),  # All instructions are started.
        (Work(vector=6), 3),
        (Work(vector=2, count=4), 4),  # One pipe counts.
        (Work(vector=6, count=4), 5),  # Counting takes a slot as well.
        (Work(product=4, lookup=1), 2.5),
        (Work(vector=2, other=10), 3),
        (Work(), 0),
    ],
    ids=str,
)
def test_what_is_scarcest_decides(work, cycles):
    assert work.cycles(CORE) == cycles


def test_slow_instructions_keep_all_pipes_busy():
    core = structs.replace(CORE, lookup=0.5)
    assert Work(lookup=3).cycles(core) == 6
    assert Work(lookup=3, vector=2).cycles(core) == 7


def test_sums_and_multiples():
    work = Work(vector=1, count=2) + Work(count=1, other=3).times(2)
    assert work == Work(vector=1, count=4, other=6) and work.instructions == 11


def test_limits_of_zen_5():
    """Three operations on 512 bits, four of which start; two products; look-ups as stated."""
    target = load_target("znver5")
    found = best_macs(target, 1, 1)
    assert found["xnor"] == pytest.approx(512 * 4 / 3) and found["int8"] == 128
    assert best_macs(target, 1, 2)["xnor"] == found["xnor"] / 2
    assert best_macs(target, 2, 2)["xnor"] == pytest.approx(found["xnor"] / 3)
    assert found["lut"] == pytest.approx(384 * target.core.lookup)


@pytest.mark.parametrize("name", ["x86-64-v3", "x86-64-v4", "emeraldrapids", "cortex-a72"])
def test_faster_cores_reach_more(name):
    target = load_target(name)
    slow = best_macs(target, 2, 2)
    rates = ("issue", "vector", "count", "lookup", "product")
    twice = structs.replace(target.core, **{rate: 2 * getattr(target.core, rate) for rate in rates})
    fast = best_macs(replace(target, core=twice), 2, 2)
    assert set(slow) == {"xnor", "lut", "int8"} and all(fast[s] >= 1.3 * slow[s] for s in slow)


def test_nothing_is_known_of_portable_code():
    target = replace(load_target("x86-64-v3"), rules=("generic",))
    assert isa_of(target) is None and best_macs(target, 1, 1) == {}


def layer_of(weight_bits, act_bits):
    """A layer of one image of 14 x 14 that ends in accumulators."""
    kappa = [tuple(2**bit for bit in range(bits)) for bits in (act_bits, weight_bits)]
    codes = np.random.default_rng(0).integers(0, 2**weight_bits, (64, 64, 3, 3), np.uint8)
    offset = np.full(64, -(2**weight_bits - 1), np.int32)
    geometry = BranchGeometry(*kappa, 0, padding=(1, 1, 1, 1))
    return ConvLayer("layer", (1, 14, 14, 64), codes, offset, geometry)


@pytest.mark.parametrize("bits", [(1, 1), (1, 2), (2, 2), (3, 3), (8, 8)], ids=str)
@pytest.mark.parametrize("name", ["x86-64-v3", "emeraldrapids", "cortex-a72", "neoverse-n2"])
def test_no_layer_takes_less_than_its_products_at_best(name, bits):
    target, layer = load_target(name), layer_of(*bits)
    most, costs = best_macs(target, *bits), strategy_costs(layer, target)
    assert costs and all(layer.macs / costs[s] <= 1.001 * most[s] for s in costs)
