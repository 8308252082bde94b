"""ARM kernels under QEMU, against the integers of `tvm_bitenc.encoding`."""

import numpy as np
import pytest

from benchmarks import workloads
from benchmarks.arm import run_layer
from benchmarks.emulated import missing_tools
from benchmarks.workloads import Workload, random_planes
from tvm_bitenc import encoding
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.schedule import strategy_costs
from tvm_bitenc.target import load_target
from tvm_bitenc.te.conv_layer import BranchGeometry, ConvLayer
from tvm_bitenc.transform.strategy import STRATEGIES

TARGETS = ("cortex-a53", "cortex-a76", "neoverse-n2", "armv7-neon")
ODD = Workload("odd", "3x3", 65, 24, 7, 3, 1, 1)
EVEN = Workload("even", "3x3", 128, 16, 5, 3, 1, 1)
WIDE = Workload("wide", "1x1", 512, 8, 5)


@pytest.fixture(params=TARGETS)
def target(request):
    """A target that QEMU runs here."""
    found = load_target(request.param, threads=1)
    if reason := missing_tools(found):
        pytest.skip(reason)
    return found


def expected(workload, bits):
    """Planes that the layer of `layer_module` gives, by the integer reference."""
    rng = np.random.default_rng(0)
    act, weight = workloads.activation_encoding(bits[1]), Encoding.symmetric(bits[0])
    codes = rng.integers(0, 2 ** bits[0], workload.weight_shape, dtype=np.uint8)
    limits, direction = workloads.random_thresholds(weight.integers(codes), act, rng)
    inputs = encoding.unpack(random_planes(workload, bits[1]), workload.in_channels)
    acc = encoding.conv2d(np.moveaxis(inputs, -1, 1), act, codes, weight, padding=workload.padding)
    along = acc * direction[:, None, None]
    reached = (along[:, None] >= limits[None, :, :, None, None]).sum(axis=1).astype(np.uint8)
    return encoding.pack(np.ascontiguousarray(np.moveaxis(reached, 1, -1)), bits[1])


@pytest.mark.slow
@pytest.mark.parametrize("bits", [(1, 1), (2, 2), (1, 3), (8, 8)])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("workload", [ODD, EVEN, WIDE], ids=lambda w: w.name)
def test_exact(workload, strategy, bits, target):
    found = run_layer(workload, bits, target, strategy)
    assert np.array_equal(found.output, expected(workload, bits))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_exact_at_two_bits(strategy, target):
    found = run_layer(ODD, (2, 2), target, strategy)
    assert np.array_equal(found.output, expected(ODD, (2, 2)))


@pytest.mark.parametrize("bits, most", [((1, 1), 3.5), ((2, 2), 11)])
def test_few_instructions(bits, most):
    target = load_target("cortex-a72", threads=1)
    if reason := missing_tools(target):
        pytest.skip(reason)
    layer = Workload("3x3 256 @14", "3x3", 256, 256, 14, 3, 1, 1)
    run = run_layer(layer, bits, target, "xnor")
    assert np.array_equal(run.output, expected(layer, bits))
    assert run.instructions <= most * layer.macs / 128


@pytest.mark.parametrize(
    "name, bits, best",
    [
        ("cortex-a53", (1, 1), "xnor"),
        ("cortex-a72", (2, 2), "lut"),
        ("cortex-a76", (1, 2), "lut"),
        ("cortex-a76", (2, 2), "int8"),
        ("cortex-a76", (1, 1), "xnor"),
    ],
)
def test_cheapest(name, bits, best):
    kappa = [tuple(2**b for b in range(n)) for n in bits]
    codes = np.zeros((64, 256, 3, 3), np.uint8)
    geometry = BranchGeometry(kappa[1], kappa[0], 0, padding=(1, 1, 1, 1))
    layer = ConvLayer("conv", (1, 14, 14, 256), codes, np.zeros(64, np.int32), geometry)
    costs = strategy_costs(layer, load_target(name))
    assert min(costs, key=costs.get) == best
