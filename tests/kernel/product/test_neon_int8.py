"""How products of bytes are made on ARM; that they are exact is for `test_arm.py`."""

import numpy as np
import pytest

from benchmarks.arm import run_layer
from benchmarks.emulated import missing_tools
from benchmarks.workloads import Workload
from tests.kernel.test_arm import expected_planes
from tvm_bitenc.branches import BranchGeometry
from tvm_bitenc.kernel.nest.tile import Tile
from tvm_bitenc.kernel.product.neon_int8 import NeonInt8
from tvm_bitenc.layer import ConvLayer
from tvm_bitenc.schedule import dotprod, i8mm, neon
from tvm_bitenc.target import load_target


def product(module, target, weight_codes, bits):
    """Product of a layer with a window of 1 x 1."""
    kappa = tuple(2**b for b in range(bits))
    offset = np.zeros(len(weight_codes), np.int32)
    shape = (1, 4, 4, weight_codes.shape[1])
    layer = ConvLayer("conv", shape, weight_codes, offset, BranchGeometry(kappa, kappa, 0))
    return NeonInt8(layer, module.isa_of(load_target(target, threads=1)), Tile(2, 2))


@pytest.mark.parametrize(
    "module, target, bits, method, shift",
    [
        (neon, "cortex-a72", 2, "pairs", 0),
        (neon, "cortex-a72", 8, "pairs", 128),
        (dotprod, "cortex-a76", 4, "dot", 0),
        (dotprod, "cortex-a76", 8, "dot", 128),
        (i8mm, "neoverse-n2", 8, "matrix", 0),
    ],
)
def test_method(module, target, bits, method, shift):
    found = product(module, target, np.zeros((8, 16, 1, 1), np.uint8), bits)
    assert (found.method, found.shift) == (method, shift)


def test_sixteen_bits_sum_no_two_products_of_the_largest_size():
    codes = np.full((8, 64, 1, 1), 255, np.uint8)  # 127, times up to 128.
    assert product(neon, "cortex-a72", codes, 8).late == 2
    codes[3, 4:8] = 0  # -128, at two neighbouring steps.
    assert product(neon, "cortex-a72", codes, 8).late == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, bits, most",
    [("cortex-a72", (2, 2), 21), ("cortex-a76", (4, 4), 11), ("neoverse-n2", (8, 8), 8.5)],
)
def test_few_instructions(name, bits, most):
    target = load_target(name, threads=1)
    if reason := missing_tools(target):
        pytest.skip(reason)
    layer = Workload("3x3 256 @14", "3x3", 256, 256, 14, 3, 1, 1)
    run = run_layer(layer, bits, target, "int8")
    assert np.array_equal(run.output, expected_planes(layer, bits))
    assert run.instructions <= most * layer.macs / 128
