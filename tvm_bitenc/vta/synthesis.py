"""Area of the Verilog on Xilinx 7: LUTs, registers and memories by Yosys."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..data import data_folder
from ..errors import LibraryError
from .config import Accelerator
from .verilator import parameters

# LUTs of cells that aren't one LUT. Carry chains, MUXF7 and MUXF8 have places of their own.
_LUTS = {
    "RAM32M": 4,
    "RAM64M": 4,
    "RAM32X1D": 2,
    "RAM64X1D": 2,
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
    rtl = data_folder("targets") / "vta" / "rtl"
    sources = " ".join(str(path) for path in sorted(rtl.glob("*.v")))
    values = parameters(accelerator) if top == "accelerator" else {}
    chosen = " ".join(f"-chparam {name} {value}" for name, value in values.items())
    kept = " ".join(f"*{name}" for name in _KEPT if name != top)
    return [
        *("yosys", "-q", "-p"),
        f"read_verilog -sv -DSYNTHESIS -I{rtl} {sources}; hierarchy -check -top {top} {chosen};"
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
        try:
            run = subprocess.run(
                command(accelerator, top, str(statistics)), capture_output=True, text=True
            )
        except FileNotFoundError:
            raise LibraryError("synthesis", "there is no yosys", "Install it") from None
        if run.returncode:
            raise LibraryError("synthesis", f"yosys fails: {run.stderr[-2000:]}", "Report it")
        return areas(statistics.read_text(), top)


def areas(statistics: str, top: str) -> dict[str, Area]:
    """Areas of `top` and the units inside from what Yosys's ``stat`` prints."""
    cells, name = {}, ""
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
            found[unit] = _area(max(names, key=instances.get), cells)
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
