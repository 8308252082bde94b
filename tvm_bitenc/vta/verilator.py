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
import weakref
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ..accelerator import BUFFERS, Accelerator
from ..data import data_folder
from ..errors import LibraryError
from . import isa
from .functional import AcceleratorError
from .program import Layer, Program
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
    7: "memory answers with an error, or what wasn't asked for",
    8: "memory doesn't answer",
}
Fault = Literal[
    "none",
    "drop response",
    "repeat response",
    "swap responses",
    "fail response",
    "wrong id",
    "drop acknowledge",
    "fail acknowledge",
]
_COUNTERS = ("cycles", "load", "compute", "store", "steps", "reads", "writes")


@dataclass(frozen=True)
class Bus:
    """How the memory behaves, which is right unless it has a fault.

    Parameters
    ----------
    stalls : (read, response, write, acknowledge)
        Percent of cycles in which the memory isn't ready, or has no answer to give.
    seed : int
        Of the stalls.
    fault : Fault
        What it does wrong once.
    fault_at : int
        With which response or acknowledgement, counted from 0.
    """

    stalls: tuple[int, int, int, int] = (0, 0, 0, 0)
    seed: int = 0
    fault: Fault = "none"
    fault_at: int = 0


class _Bus(ctypes.Structure):
    """``vta_bus`` of driver.cpp."""

    _fields_ = [
        (name, ctypes.c_uint32)
        for name in ("latency", "seed", "read", "response", "write", "acknowledge", "fault", "at")
    ]


class VerilatorSimulator:
    """One accelerator in Verilog, and its memory. It may run one program after another.

    Parameters
    ----------
    accelerator : Accelerator
    memory : ndarray of uint64
        Read and written in place.
    bus : Bus

    Raises
    ------
    LibraryError
        If Verilator or a C++ compiler is missing or fails.
    """

    def __init__(self, accelerator: Accelerator, memory: np.ndarray, bus: Bus = Bus()):
        self.accelerator, self.memory = accelerator, memory
        self._library = _library(accelerator)
        fault = get_args(Fault).index(bus.fault)
        behaviour = _Bus(accelerator.latency, bus.seed, *bus.stalls, fault, bus.fault_at)
        self._machine = ctypes.c_void_p(
            self._library.vta_open(
                memory.ctypes.data_as(ctypes.c_void_p),
                ctypes.c_uint32(memory.size),
                ctypes.byref(behaviour),
            )
        )
        weakref.finalize(self, _close, self._library, self._machine, memory)

    def reset(self) -> None:
        """Reset the accelerator, but not the memory: it still answers what was asked before."""
        self._library.vta_reset(self._machine)

    def run_words(self, count: int, max_cycles: int = 100_000_000, base: int = 0) -> Cycles:
        """Run `count` instructions from word `base` of the memory, all addresses relative to it.

        Raises
        ------
        AcceleratorError
            If the accelerator raises its error flag. Where it isn't done it needs a reset.
        """
        counters = np.zeros(len(_COUNTERS), np.uint64)
        error = self._library.vta_run(
            self._machine,
            ctypes.c_uint32(base),
            ctypes.c_uint32(self.memory.size - base),
            ctypes.c_uint32(count),
            ctypes.c_uint64(max_cycles),
            counters.ctypes.data_as(ctypes.c_void_p),
        )
        if error:
            raise AcceleratorError(
                "accelerator", ERRORS[error], "The functional simulator says which instruction"
            )
        return Cycles(*map(int, counters))

    def run_layers(self, program: Program, max_cycles: int = 10**9) -> list[tuple[Layer, Cycles]]:
        """Run a program from word 0 of the memory, and count for each of its layers.

        What begins while the layer in front still computes counts there.
        """
        total, count = self.run_words(len(program.instructions), max_cycles), len(program.layers)
        counters = np.zeros((count, len(_COUNTERS)), np.uint64)
        found = self._library.vta_layers(
            self._machine, counters.ctypes.data_as(ctypes.c_void_p), ctypes.c_uint32(count)
        )
        assert found == count  # The compiler marks the end of each.
        ends = [*(Cycles(*line) for line in counters[:-1].tolist()), total]
        starts = [Cycles(*[0] * len(_COUNTERS)), *ends]
        return [(x, end - start) for x, start, end in zip(program.layers, starts, ends)]


def _close(library: ctypes.CDLL, machine: ctypes.c_void_p, _memory: np.ndarray) -> None:
    """Free a machine; until then its memory is kept."""
    library.vta_close(machine)


def parameters(accelerator: Accelerator) -> dict[str, int]:
    """Parameters of the top module."""
    rows = {f"{buffer.upper()}_ROWS": accelerator.rows(buffer) for buffer in BUFFERS}
    return dict(
        DK=accelerator.depth,
        DM=accelerator.channels,
        DN=accelerator.pixels,
        **rows,
        FLOAT_UNITS=accelerator.float_units,
        INSTRUCTION_QUEUE=accelerator.instruction_queue,
        TOKEN_QUEUE=accelerator.token_queue,
        READS=accelerator.outstanding,
        WRITES=accelerator.outstanding,
        STAGES=accelerator.stages,
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
    library.vta_layers.restype = ctypes.c_uint32
    library.vta_run.restype, library.vta_open.restype = ctypes.c_int, ctypes.c_void_p
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
