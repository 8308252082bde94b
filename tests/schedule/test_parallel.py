"""Work is divided so that threads end together."""

import pytest

from benchmarks.arm import layer_of
from benchmarks.workloads import WORKLOADS
from tvm_bitenc.schedule import avx512, x86
from tvm_bitenc.schedule.parallel import MAX_IDLE, idle
from tvm_bitenc.schedule.vector import default_tile
from tvm_bitenc.target import load_target


@pytest.mark.parametrize("threads", [2, 3, 4])
@pytest.mark.parametrize(
    "workload", [w for w in WORKLOADS if w.kind == "3x3"], ids=lambda w: w.name
)
def test_threads_end_together(workload, threads):
    """The last layers of ResNet-18 have seven rows: two threads would take four and three."""
    target = load_target("emeraldrapids")
    isa = avx512.isa_of(target)
    layer = layer_of(workload, (1, 1), target).with_strategy("xnor")
    _, product = x86.FAMILY.product_of(layer, isa)
    tile = default_tile(layer, isa, threads, product, x86.FAMILY)
    assert idle(layer.output_size[0] // tile.rows * tile.splits, threads) <= MAX_IDLE


def test_threads_that_wait():
    assert idle(7, 2) == 1 / 8 and idle(14, 2) == 0 and idle(1, 4) == 3 / 4
