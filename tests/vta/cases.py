"""Tests that the accelerator's Verilog runs in, or the functional simulator: marks, and a run."""

import shutil

import pytest

from tvm_bitenc.vta.functional import MODULES, FunctionalSimulator
from tvm_bitenc.vta.verilator import VerilatorSimulator

needs_verilator = pytest.mark.skipif(
    not shutil.which("verilator"), reason="install verilator and g++"
)
both = pytest.mark.parametrize(
    "verilog",
    [False, pytest.param(True, marks=needs_verilator)],
    ids=["functional", "verilog"],
)


def run(program, words, accelerator, verilog=False, order=MODULES):
    """Run a program on what the CPU hands over; return its part of the memory with the output."""
    memory = program.image(words)
    if verilog:
        VerilatorSimulator(accelerator, memory).run_words(len(program.instructions))
    else:
        FunctionalSimulator(accelerator, memory).run_words(0, len(program.instructions), order)
    return memory[program.output_address :]
