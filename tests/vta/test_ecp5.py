"""What nextpnr says of the accelerator with its bus."""

import shutil

import pytest

from tvm_bitenc.accelerator import load_accelerator
from tvm_bitenc.data import data_folder
from tvm_bitenc.vta.ecp5 import Implementation, main, read_bus, read_report
from tvm_bitenc.vta.registers import sizes
from tvm_bitenc.vta.synthesis import run

REPORT = """
Info: Device utilisation:
Info: 	          TRELLIS_IO:     0/  365     0%
Info: 	              DP16KD:    40/  208    19%
Info: 	          MULT18X18D:     3/  156     1%
Info: 	          TRELLIS_FF:  5000/83640     5%
Info: 	        TRELLIS_COMB: 12000/83640    14%
Info: Max frequency for clock '$glbnet$aclk': 40.25 MHz (FAIL at 50.00 MHz)
Info: Max frequency for clock '$glbnet$aclk': 43.50 MHz (FAIL at 50.00 MHz)
"""


def test_report_is_of_the_routed_design():
    assert read_report(REPORT) == Implementation(12000, 5000, 40, 3, 43.5)


def test_parameters_are_printed_for_other_tools(capsys):
    main(["default", "--parameters"])
    words = capsys.readouterr().out.split()
    printed = dict(zip(words[::2], map(int, words[1::2])))
    assert printed.items() <= sizes(load_accelerator()).items() and printed["DM"] == 8


@pytest.mark.skipif(not shutil.which("yosys"), reason="install yosys")
def test_yosys_finds_no_latch_and_no_loop():
    run(
        [
            *("yosys", "-q", "-p"),
            f"{read_bus()}; hierarchy -check -top vta_axi -chparam DM 2 -chparam DN 2; proc;"
            " check -assert; select -assert-none t:$dlatch t:$adlatch t:$dlatchsr",
        ]
    )


def test_the_script_for_vivado_is_there():
    """It can't be run here; its braces and brackets at least are balanced."""
    text = (data_folder("targets") / "vta" / "synthesis" / "vivado.tcl").read_text()
    for left, right in "{}", "[]":
        assert text.count(left) == text.count(right)
