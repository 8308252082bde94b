"""The accelerator with its bus on a Lattice ECP5-85k, by Yosys and nextpnr.

``python -m tvm_bitenc.vta.ecp5 [FILE]`` prints cells and frequency; ``--parameters`` prints the
parameters of `vta_axi.v`, for other tools.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from dataclasses import dataclass

from ..accelerator import Accelerator, load_accelerator
from ..data import data_folder
from ..errors import BitencError
from .synthesis import nextpnr, read_sources, run
from .verilator import parameters

DEVICE = "85k"


@dataclass(frozen=True)
class Implementation:
    """What a design takes of a device, and how fast it is there.

    Parameters
    ----------
    luts : int
        Of four inputs, with those of carry chains and memories.
    registers, memories, multipliers : int
        Flip-flops, block memories of 18 kbit, multipliers of 18 x 18 bits.
    megahertz : float
        As nextpnr estimates for the routed design.
    """

    luts: int
    registers: int
    memories: int
    multipliers: int
    megahertz: float


def implement(accelerator: Accelerator) -> Implementation:
    """Place and route `vta_axi`, out of context: its ports aren't pins.

    Raises
    ------
    LibraryError
        If Yosys or nextpnr is missing or fails, as where the design is too large.
    """
    place = nextpnr()
    chosen = " ".join(f"-chparam {x} {value}" for x, value in parameters(accelerator).items())
    with tempfile.TemporaryDirectory() as folder:
        script = (
            f"{read_bus()}; hierarchy -check -top vta_axi {chosen};"
            " synth_ecp5 -top vta_axi -json vta.json"
        )
        run(["yosys", "-q", "-p", script], folder)
        options = (f"--{DEVICE}", "--out-of-context", "--freq", "50", "--timing-allow-fail")
        return read_report(run([place, *options, "--json", "vta.json"], folder))


def read_bus() -> str:
    """Yosys's commands that read the Verilog, with that of the bus."""
    bus = data_folder("targets") / "vta" / "rtl" / "axi"
    sources = " ".join(map(str, sorted(bus.glob("*.v"))))
    return f"{read_sources()}; read_verilog -sv -DSYNTHESIS -I{bus} {sources}"


def read_report(said: str) -> Implementation:
    """Cells and frequency from what nextpnr prints."""

    def used(cell: str) -> int:
        return int(re.findall(rf"{cell}:\s+(\d+)/", said)[-1])

    # The last estimate is of the routed design.
    megahertz = re.findall(r"Max frequency for clock .*?: ([\d.]+) MHz", said)[-1]
    return Implementation(
        luts=used("TRELLIS_COMB"),
        registers=used("TRELLIS_FF"),
        memories=used("DP16KD"),
        multipliers=used("MULT18X18D"),
        megahertz=float(megahertz),
    )


def main(arguments: list[str]) -> None:
    """Print what an accelerator of targets/vta/ takes."""
    parser = argparse.ArgumentParser(prog="python -m tvm_bitenc.vta.ecp5")
    parser.add_argument("file", nargs="?", default="ecp5", help="a name in targets/vta/ or a path")
    parser.add_argument("--parameters", action="store_true", help="print those of vta_axi.v")
    options = parser.parse_args(arguments)
    accelerator = load_accelerator(options.file)
    if options.parameters:
        print(" ".join(f"{name} {value}" for name, value in parameters(accelerator).items()))
    else:
        print(f"vta_axi on an ECP5-{DEVICE}: {implement(accelerator)}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BitencError as error:
        sys.exit(str(error))
