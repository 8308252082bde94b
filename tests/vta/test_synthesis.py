"""Areas by Yosys: bars in LUTs per binary multiply-accumulate per cycle."""

import shutil

import pytest

from tvm_bitenc.accelerator import load_accelerator
from tvm_bitenc.errors import LibraryError
from tvm_bitenc.vta.synthesis import Area, areas, frequency, synthesize

needs_yosys = pytest.mark.skipif(not shutil.which("yosys"), reason="install yosys")


@pytest.mark.slow
@needs_yosys
def test_dot_product_unit_takes_two_luts_a_bit():
    area = synthesize(load_accelerator(), "dot")["dot"]
    assert area.luts <= 2.0 * 64
    assert area.registers == 7 + 31 and not area.dsps


@needs_yosys
@pytest.mark.slow
def test_compute_module_takes_less_than_four_luts_a_bit():
    accelerator = load_accelerator()
    assert accelerator.macs_per_cycle == 8 * 64 * 8
    found = synthesize(accelerator)
    assert found["compute"].luts <= 3.7 * accelerator.macs_per_cycle
    assert found["compute"].luts > 64 * found["dot"].luts
    assert found["accelerator"].bram36 > 0


@pytest.mark.slow
def test_frequency_of_a_registered_array():
    try:
        assert 30 < frequency(2, 2) < 500
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
