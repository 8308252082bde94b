"""Marks of tests that the accelerator's Verilog runs in."""

import shutil

import pytest

needs_verilator = pytest.mark.skipif(
    not shutil.which("verilator"), reason="install verilator and g++"
)
both = pytest.mark.parametrize(
    "verilog",
    [False, pytest.param(True, marks=needs_verilator)],
    ids=["functional", "verilog"],
)
