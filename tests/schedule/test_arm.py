"""What ARM layers cost, against instructions under QEMU and cycles of LLVM's models."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.arm import layer_of, run_layer
from benchmarks.emulated import missing_model, missing_tools
from benchmarks.workloads import Workload, tiled_codes
from tvm_bitenc.schedule import arm, dotprod, i8mm, neon, strategy_costs
from tvm_bitenc.strategy import STRATEGIES
from tvm_bitenc.target import load_target

SMALL = Workload("3x3 128 @8", "3x3", 128, 128, 8, 3, 1, 1)
LARGE = Workload("3x3 256 @14", "3x3", 256, 256, 14, 3, 1, 1)
MODELLED = ["cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n2"]
LOW_BITS = [(1, 1), (1, 2), (2, 1), (2, 2)]
# How far a cost may be from what was counted: up to so many times.
INSTRUCTIONS, CYCLES = 1.25, 1.4


def best(name, bits):
    target = load_target(name)
    costs = strategy_costs(layer_of(LARGE, bits, target), target)
    assert set(costs) == set(STRATEGIES)
    return min(costs, key=costs.get)


@pytest.mark.parametrize("bits", LOW_BITS, ids=str)
@pytest.mark.parametrize("name", ["cortex-a53", "cortex-a72", "aarch64", "armv7-neon"])
def test_bit_serial_without_dot_products(name, bits):
    assert best(name, bits) in ("xnor", "lut")


@pytest.mark.parametrize("bits", [(2, 2), (2, 3), (3, 3), (4, 4), (8, 8)], ids=str)
def test_dot_products_from_two_by_two_bits(bits):
    assert best("cortex-a76", bits) == "int8"


@pytest.mark.parametrize("bits", [(1, 2), (2, 1)], ids=str)
def test_bit_serial_below(bits):
    assert best("cortex-a76", bits) in ("xnor", "lut")


def test_look_ups_where_weights_are_binary():
    """They cost little more for more bits of activations: less than dot products."""
    assert best("cortex-a76", (1, 3)) == "lut"


@pytest.mark.parametrize("bits", [(1, 2), (2, 1), (2, 2), (4, 4), (8, 8)], ids=str)
def test_matrix_products_of_all_but_binary_layers(bits):
    assert best("neoverse-n2", bits) == "int8"


@pytest.mark.parametrize("name", [*MODELLED, "armv7-neon"])
def test_binary_layers_count_bits_and_8_bit_ones_multiply(name):
    assert best(name, (1, 1)) == "xnor" and best(name, (8, 8)) == "int8"


def test_a_core_decides(tmp_path):
    """Slow look-ups make `lut` cost more, and nothing else."""
    path = tmp_path / "board.toml"
    costs = []
    for lookup in (1, 0.1):
        path.write_text(
            '[tvm]\nmtriple = "aarch64-linux-gnu"\nmcpu = "cortex-a53"\n'
            f'[schedule]\nrules = ["neon"]\n[core]\nlookup = {lookup}\n'
        )
        target = load_target(path)
        costs.append(strategy_costs(layer_of(SMALL, (1, 1), target), target))
    fast, slow = costs
    assert slow["lut"] > 2 * fast["lut"]
    assert (slow["xnor"], slow["int8"]) == (fast["xnor"], fast["int8"])


COUNTED = [
    *(("cortex-a72", strategy, bits) for strategy in STRATEGIES for bits in [(1, 1), (2, 2)]),
    *(
        pytest.param(name, strategy, bits, marks=pytest.mark.slow)
        for name in [*MODELLED, "armv7-neon"]
        for strategy in STRATEGIES
        for bits in [(1, 1), (1, 3), (2, 2), (4, 4), (8, 8)]
        if sum(bits) <= 8 or (strategy == "int8" and name in MODELLED[1:])
    ),
]


def isa_of(target):
    """What the target's first rule set offers."""
    return next(filter(None, (module.isa_of(target) for module in (i8mm, dotprod, neon))))


@pytest.mark.sweep(2)
@pytest.mark.parametrize("name, strategy, bits", COUNTED, ids=str)
def test_costs_are_near_what_is_counted(name, strategy, bits):
    target = load_target(name, threads=1)
    if reason := missing_tools(target):
        pytest.skip(reason)
    has_model = not missing_model(target)
    layer = layer_of(SMALL, bits, target)
    run = run_layer(SMALL, bits, target, strategy, with_cycles=has_model)
    expected = arm.works(layer, isa_of(target))[strategy].instructions
    assert expected == pytest.approx(run.instructions, rel=INSTRUCTIONS - 1)
    if has_model:
        cost = strategy_costs(layer, target)[strategy]
        assert run.cycles / CYCLES <= cost <= run.cycles * CYCLES


@pytest.mark.sweep(1)
@pytest.mark.parametrize("bits", [(1, 1), (1, 3)], ids=str)
@pytest.mark.parametrize("name", ["cortex-a72", "armv7-neon"])
def test_sums_read_by_number_cost_what_is_counted(name, bits):
    target = load_target(name, threads=1)
    if reason := missing_tools(target):
        pytest.skip(reason)
    whole = layer_of(SMALL, bits, target)
    rows = tuple(np.random.default_rng(0).permutation(SMALL.out_channels) % 32)
    layer = replace(whole, weight_codes=whole.weight_codes[:32], channel_rows=rows)
    layer = replace(layer, weight_offset=whole.weight_offset[:32])
    run = run_layer(SMALL, bits, target, "xnor", codes_of=tiled_codes(4, shuffled=True))
    expected = arm.works(layer, isa_of(target))["xnor"].instructions
    assert expected == pytest.approx(run.instructions, rel=INSTRUCTIONS - 1)
