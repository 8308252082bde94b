"""A program of kernels for another CPU, and a plan of what they do to which arrays."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tvm

from tvm_bitenc.target import Target

from .tools import command, link, run

TYPE_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}


class Program:
    """Kernels built for a target that QEMU runs.

    Parameters
    ----------
    functions : mapping of str to tirx.PrimFunc
        They take tensors, outputs last.
    target : Target
        One whose kernels start no threads.
    """

    def __init__(self, functions: Mapping[str, tvm.tirx.PrimFunc], target: Target):
        self.target, self._folder = target, tempfile.TemporaryDirectory()
        self.names = list(functions)
        named = {name: f.with_attr("global_symbol", name) for name, f in functions.items()}
        self.library = tvm.compile(tvm.IRModule(named), target=target.tvm_target).mod
        self.library.write_to_file(str(self.folder / "kernels.o"), "o")
        symbols = [f"__tvm_ffi_{name}" for name in self.names]
        declared = f'#include "runner.h"\nextern Kernel {", ".join(symbols)};\n'
        table = f"Kernel *const kernels[] = {{{', '.join(symbols)}}};\n"
        (self.folder / "table.c").write_text(declared + table)
        link(target, self.folder, ["table.c", "kernels.o"], "program")

    @property
    def folder(self) -> Path:
        """Where the program and its arrays are."""
        return Path(self._folder.name)

    @property
    def assembly(self) -> str:
        """Assembly of all kernels."""
        return self.library.inspect_source("asm")


@dataclass(frozen=True)
class Block:
    """Instructions that were executed one after another.

    Parameters
    ----------
    address : int
    instructions, times : int
        How many, and how often.
    """

    address: int
    instructions: int
    times: int


@dataclass(frozen=True, eq=False)
class PlanRun:
    """What a plan gave.

    Parameters
    ----------
    outputs : list of ndarray
    instructions : list of int
        That each call executed.
    blocks : list of Block
        Of all calls, if they were asked for.
    """

    outputs: list[np.ndarray]
    instructions: list[int]
    blocks: list[Block]


class Plan:
    """Arrays, calls of kernels on them, and which arrays are wanted in the end."""

    def __init__(self, program: Program):
        self.program, self._lines, self._specs = program, [], []

    def tensor(self, value: np.ndarray) -> int:
        """Add an array with its values; return its number."""
        name = f"{len(self._specs)}.raw"
        np.ascontiguousarray(value).tofile(self.program.folder / name)
        return self._tensor(value.shape, value.dtype, name)

    def output(self, shape: Sequence[int], dtype: str) -> int:
        """Add an array without values; return its number."""
        return self._tensor(shape, np.dtype(dtype), "-")

    def _tensor(self, shape, dtype: np.dtype, name: str) -> int:
        self._specs.append((tuple(shape), dtype))
        sizes = ",".join(map(str, shape)) or "-"
        kind = f"{TYPE_CODES[dtype.kind]} {dtype.itemsize * 8}"
        self._lines.append(f"tensor {kind} {sizes} {name}")
        return len(self._specs) - 1

    def call(self, name: str, numbers: Sequence[int]) -> None:
        """Add a call of a kernel on arrays."""
        kernel = self.program.names.index(name)
        self._lines.append(f"call {kernel} {len(numbers)} {' '.join(map(str, numbers))}")

    def run(self, wanted: Sequence[int], with_blocks: bool = False) -> PlanRun:
        """Run all, and return some arrays."""
        folder = self.program.folder
        writes = [f"write {number} out{number}.raw" for number in wanted]
        (folder / "plan").write_text("\n".join([*self._lines, *writes, ""]))
        printed = run(command(self.program.target, "./program", ["plan"], with_blocks), folder)
        found = []
        for number in wanted:
            shape, dtype = self._specs[number]
            found.append(np.fromfile(folder / f"out{number}.raw", dtype).reshape(shape))
        counts = [int(count) for count in re.findall(r"instructions=(\d+)", printed)]
        blocks = re.findall(r"block=(\w+) (\d+) (\d+)", printed)
        return PlanRun(found, counts, [Block(int(a, 16), int(n), int(t)) for a, n, t in blocks])
