"""What ARM layers cost, against instructions under QEMU and cycles of LLVM's models."""

import numpy as np
import pytest

from benchmarks.arm import run_layer
from benchmarks.emulated import missing_model, missing_tools
from benchmarks.workloads import Workload, activation_encoding
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.schedule import arm, dotprod, i8mm, neon, strategy_costs
from tvm_bitenc.target import load_target
from tvm_bitenc.te.conv_layer import BranchGeometry, ConvLayer
from tvm_bitenc.transform.strategy import STRATEGIES

SMALL = Workload("3x3 128 @8", "3x3", 128, 128, 8, 3, 1, 1)
LOW_BITS = [(1, 1), (1, 2), (2, 1), (2, 2)]
# How far a cost may be from what was counted: up to so many times.
INSTRUCTIONS, CYCLES = 1.25, 1.4


def layer_of(bits, size=14, channels=256):
    """A 3x3 layer, encoded as the benchmarks' are."""
    act, weight = activation_encoding(bits[1]), Encoding.symmetric(bits[0])
    geometry = BranchGeometry(
        tuple(2**k for k in range(bits[1])),
        tuple(2**m for m in range(bits[0])),
        int(2 ** bits[1] - 1 - 2 * act.zero_point),
        padding=(1, 1, 1, 1),
    )
    codes = np.random.default_rng(0).integers(0, 2**weight.bits, (channels, channels, 3, 3))
    offset = np.zeros(channels, np.int32)
    return ConvLayer("conv", (1, size, size, channels), codes.astype(np.uint8), offset, geometry)


def best(name, bits):
    costs = strategy_costs(layer_of(bits), load_target(name))
    assert set(costs) == set(STRATEGIES)
    return min(costs, key=costs.get)


@pytest.mark.parametrize("bits", LOW_BITS, ids=str)
@pytest.mark.parametrize("name", ["cortex-a53", "cortex-a72", "aarch64", "armv7-neon"])
def test_bit_serial_without_dot_products(name, bits):
    assert best(name, bits) in ("xnor", "lut")


@pytest.mark.parametrize("name", ["cortex-a53", "cortex-a72", "cortex-a76", "armv7-neon"])
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
        costs.append(strategy_costs(layer_of((1, 1)), load_target(path)))
    fast, slow = costs
    assert slow["lut"] > 2 * fast["lut"]
    assert (slow["xnor"], slow["int8"]) == (fast["xnor"], fast["int8"])


MODELLED = ["cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n2"]
COUNTED = [
    *(("cortex-a72", strategy, bits) for strategy in STRATEGIES for bits in [(1, 1), (2, 2)]),
    *(
        pytest.param(name, strategy, bits, marks=pytest.mark.slow)
        for name in [*MODELLED, "armv7-neon"]
        for strategy in STRATEGIES
        for bits in [(1, 1), (1, 3), (2, 2), (4, 4), (8, 8)]
        if sum(bits) <= 8 or strategy == "int8"
    ),
]


def isa_of(target):
    """What the target's first rule set offers."""
    return next(filter(None, (module.isa_of(target) for module in (i8mm, dotprod, neon))))


@pytest.mark.parametrize("name, strategy, bits", COUNTED, ids=str)
def test_costs_are_near_what_is_counted(name, strategy, bits):
    target = load_target(name, threads=1)
    if reason := missing_tools(target):
        pytest.skip(reason)
    has_model = not missing_model(target)
    layer = layer_of(bits, SMALL.size, SMALL.in_channels)
    run = run_layer(SMALL, bits, target, strategy, with_cycles=has_model)
    expected = arm.works(layer, isa_of(target))[strategy].instructions
    assert expected == pytest.approx(run.instructions, rel=INSTRUCTIONS - 1)
    if has_model:
        cost = strategy_costs(layer, target)[strategy]
        assert run.cycles / CYCLES <= cost <= run.cycles * CYCLES
