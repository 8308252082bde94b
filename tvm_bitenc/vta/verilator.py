"""Cycle-accurate simulator: the Verilog under Verilator, as a shared library.

It is built once for its sources, parameters and tools, and kept in the user's cache.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from ..accelerator import BUFFERS, Accelerator
from ..data import data_folder
from ..errors import LibraryError
from . import isa
from .functional import AcceleratorError
from .work import Cycles

ERRORS = {
    -2: "it hangs",
    -1: "it isn't done after as many cycles as it may take",
    1: "an illegal instruction",
    2: "an address outside the memory",
    3: "a row outside a buffer",
    4: "more tokens than a queue holds",
    5: "deadlock",
    6: "finish leaves instructions or tokens",
}
_COUNTERS = ("cycles", "load", "compute", "store", "steps", "reads", "writes")


class VerilatorSimulator:
    """One accelerator in Verilog, and its memory.

    Parameters
    ----------
    accelerator : Accelerator
    memory : ndarray of uint64
        Read and written in place.

    Raises
    ------
    LibraryError
        If Verilator or a C++ compiler is missing or fails.
    """

    def __init__(self, accelerator: Accelerator, memory: np.ndarray):
        self.accelerator, self.memory = accelerator, memory
        self._run = _library(accelerator).vta_run

    def run_words(self, count: int, max_cycles: int = 100_000_000) -> Cycles:
        """Run `count` instructions from word 0 of the memory.

        Raises
        ------
        AcceleratorError
            If the accelerator raises its error flag.
        """
        counters = np.zeros(len(_COUNTERS), np.uint64)
        error = self._run(
            self.memory.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_uint32(self.memory.size),
            ctypes.c_uint32(count),
            ctypes.c_uint32(self.accelerator.latency),
            ctypes.c_uint64(max_cycles),
            counters.ctypes.data_as(ctypes.c_void_p),
        )
        if error:
            raise AcceleratorError(
                "accelerator", ERRORS[error], "The functional simulator says which instruction"
            )
        return Cycles(*map(int, counters))


def parameters(accelerator: Accelerator) -> dict[str, int]:
    """Parameters of the top module."""
    rows = {f"{buffer.upper()}_ROWS": accelerator.rows(buffer) for buffer in BUFFERS}
    return dict(
        DM=accelerator.channels,
        DN=accelerator.pixels,
        DK=accelerator.depth,
        STAGES=accelerator.stages,
        **rows,
        INSTRUCTION_QUEUE=accelerator.instruction_queue,
        TOKEN_QUEUE=accelerator.token_queue,
    )


def cache_folder() -> Path:
    """Where built simulators are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tvm-bitenc" / "verilator"


@cache
def _library(accelerator: Accelerator) -> ctypes.CDLL:
    sources = sorted(
        path
        for path in (data_folder("targets") / "vta" / "rtl").iterdir()
        if path.suffix in (".v", ".vlt", ".cpp")
    )
    compiler = os.environ.get("CXX", "g++")
    versions = [_output([tool, "--version"]) for tool in ("verilator", compiler)]
    key = hashlib.sha256()
    for part in [*versions, repr(parameters(accelerator)), isa.verilog_header()]:
        key.update(part.encode() + b"\0")
    for source in sources:
        key.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    path = cache_folder() / f"{key.hexdigest()[:24]}.so"
    if not path.is_file():
        _build(accelerator, sources, compiler, path)
    library = ctypes.CDLL(str(path))
    library.vta_run.restype = ctypes.c_int
    return library


def _build(accelerator: Accelerator, sources: list[Path], compiler: str, path: Path) -> None:
    """Build under a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    root = Path(_output(["verilator", "--getenv", "VERILATOR_ROOT"]).strip())
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        (Path(folder) / "isa.vh").write_text(isa.verilog_header())
        _output(
            [
                *("verilator", "--cc", "-O3", "--x-assign", "fast", "--x-initial", "fast"),
                *("-Wall", "-Wno-DECLFILENAME", "--top-module", "accelerator"),
                *("--Mdir", folder, f"-I{folder}"),
                *(f"-G{name}={value}" for name, value in parameters(accelerator).items()),
                *(str(source) for source in sources if source.suffix != ".cpp"),
            ]
        )
        generated = [*Path(folder).glob("*.cpp"), *(s for s in sources if s.suffix == ".cpp")]
        runtime = [root / "include" / f"verilated{part}.cpp" for part in ("", "_threads")]
        library = Path(folder) / "library.so"
        _output(
            [
                *(compiler, "-shared", "-fPIC", "-O2", "-std=c++17", "-pthread"),
                *(f"-I{folder}", f"-I{root / 'include'}", f"-I{root / 'include' / 'vltstd'}"),
                *map(str, [*generated, *(each for each in runtime if each.is_file())]),
                *("-o", str(library)),
            ]
        )
        shutil.move(library, path)


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise LibraryError(
            "Verilog simulator", f"there is no {command[0]}", "Install verilator and g++"
        ) from None
    except subprocess.CalledProcessError as error:
        raise LibraryError(
            "Verilog simulator", f"{command[0]} fails: {error.stderr[-2000:]}", "Report it"
        ) from None
    return done.stdout
