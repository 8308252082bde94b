"""Areas by Yosys: bars in LUTs per binary multiply-accumulate per cycle."""

import shutil

import pytest

from tvm_bitenc.accelerator import Accelerator, load_accelerator
from tvm_bitenc.errors import LibraryError
from tvm_bitenc.vta.synthesis import Area, areas, frequency, synthesize

needs_yosys = pytest.mark.skipif(not shutil.which("yosys"), reason="install yosys")


@pytest.mark.slow
@needs_yosys
@pytest.mark.parametrize("depth, most", [(32, 2.55), (64, 1.9), (128, 1.65), (256, 1.47)])
def test_dot_product_unit(depth, most):
    """Count and sum have registers, 9 and 31, and of two stages what the counters of six leave."""
    for stages in (1, 2):
        area = synthesize(Accelerator(depth=depth, stages=stages), "dot")["dot"]
        assert area.luts <= most * depth and not area.dsps
        assert (area.registers == 9 + 31) == (stages == 1)


@needs_yosys
@pytest.mark.slow
def test_compute_module():
    accelerator = load_accelerator()
    assert accelerator.macs_per_cycle == 8 * 64 * 8
    found = synthesize(accelerator)
    assert found["compute"].luts <= 3.7 * accelerator.macs_per_cycle
    assert found["compute"].luts > 64 * found["dot"].luts
    assert found["accelerator"].bram36 > 0


@pytest.mark.slow
def test_frequency_of_a_registered_array():
    try:
        assert 100 < frequency(2, 2) < 500
    except LibraryError as error:
        assert "there is no" in error.cause


STATISTICS = """
=== $paramod$1\\dot ===

   Number of cells:                  3
     LUT4                            2
     FDRE                            1

=== dot ===

   Number of cells:                  4
     LUT6                            3
     CARRY4                          1

=== top ===

   Number of cells:                 12
     $paramod$1\\dot                 1
     dot                             4
     LUT2                            1
     RAM32M                          2
     RAMB18E1                        1
     RAMB36E1                        1
     DSP48E1                         3

=== design hierarchy ===

   top                               1
     dot                             4

   Number of cells:                 99
     LUT6                           99
"""


def test_cells_count_once_per_instance():
    assert areas(STATISTICS, "top") == {
        "dot": Area(3, 0, 0.0, 0),
        "top": Area(4 * 3 + 2 + 1 + 2 * 4, 1, 1.5, 3),
    }
