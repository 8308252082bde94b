"""Costs on CPUs without vectors: near what QEMU counts, and few."""

import pytest

from benchmarks.arm import layer_of, run_layer
from benchmarks.emulated import missing_tools
from benchmarks.workloads import Workload
from tvm_bitenc.schedule import scalar, strategy_costs
from tvm_bitenc.strategy import STRATEGIES
from tvm_bitenc.target import load_target

TARGETS = ("cortex-m3", "cortex-m4", "cortex-m7", "riscv64", "riscv64-zbb")
MOST = {"riscv64": 0.75, "riscv64-zbb": 0.4}  # Instructions for each product of two bits.
LAYER = Workload("3x3 64 @8", "3x3", 64, 64, 8, 3, 1, 1)
OTHERS = (
    Workload("1x1 128 @4", "1x1", 128, 32, 4, 1, 1, 0),
    Workload("3x3 16 @9, stride 2", "3x3", 16, 24, 9, 3, 2, 1),
)
NEAR = 1.4
FAR = {"lut": 2.5}  # `generic` does it, as LLVM likes.


@pytest.fixture(params=TARGETS)
def target(request):
    found = load_target(request.param, threads=1)
    if reason := missing_tools(found):
        pytest.skip(reason)
    return found


def counted_and_expected(layer, bits, target, strategy):
    run = run_layer(layer, bits, target, strategy)
    works = scalar.works(layer_of(layer, bits, target), scalar.isa_of(target))
    return run.instructions, works[strategy].instructions


def is_near(counted, expected, strategy):
    most = FAR.get(strategy, NEAR)
    return counted / most <= expected <= counted * most


@pytest.mark.sweep(2)
def test_a_layer_of_two_bits_takes_few_instructions(target):
    """From planes to planes: padding, sums and thresholds of the whole layer."""
    counted, expected = counted_and_expected(LAYER, (2, 2), target, "xnor")
    assert counted <= MOST.get(target.name, 1.4) * LAYER.macs
    assert is_near(counted, expected, "xnor")


@pytest.mark.parametrize("name, most", [("cortex-m4", 1.6), ("cortex-m3", 2.7)])
def test_a_layer_of_eight_bits_too(name, most):
    target = load_target(name, threads=1)
    if reason := missing_tools(target):
        pytest.skip(reason)
    counted, expected = counted_and_expected(LAYER, (8, 8), target, "int8")
    assert counted <= most * LAYER.macs and is_near(counted, expected, "int8")


@pytest.mark.slow
@pytest.mark.parametrize("layer", [LAYER, *OTHERS], ids=lambda layer: layer.name)
@pytest.mark.parametrize(
    "strategy, bits",
    [
        (strategy, bits)
        for strategy in STRATEGIES
        for bits in [(1, 1), (1, 2), (3, 3), (4, 4), (8, 8)]
        if strategy != "lut" or sum(bits) <= 8  # No one would take it.
    ],
    ids=str,
)
def test_costs_are_near_what_is_counted(strategy, bits, layer, target):
    assert is_near(*counted_and_expected(layer, bits, target, strategy), strategy)


@pytest.mark.sweep(2)
@pytest.mark.parametrize(
    "bits",
    [(2, 2), *(pytest.param(bits, marks=pytest.mark.slow) for bits in [(1, 1), (3, 3), (8, 8)])],
    ids=str,
)
def test_auto_takes_what_is_fastest(bits, target):
    costs = strategy_costs(layer_of(LAYER, bits, target), target)
    chosen = min(costs, key=costs.get)
    counts = {s: run_layer(LAYER, bits, target, s).instructions for s in ("xnor", "int8")}
    assert chosen == min(counts, key=counts.get)
