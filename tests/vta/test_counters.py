"""Counters by the cycle model against those of the Verilog."""

import shutil

import pytest

from tvm_bitenc.accelerator import load_accelerator
from tvm_bitenc.simulate.programs import counters
from tvm_bitenc.simulate.sample import sample_layer
from tvm_bitenc.vta.compile_layer import compile_conv
from tvm_bitenc.vta.counters import predicted

ACCELERATOR = load_accelerator()


@pytest.mark.skipif(not shutil.which("verilator"), reason="install verilator and g++")
@pytest.mark.parametrize("layer", ["3x3 64->64 @14", "1x1 70->128 @7/2", "3x3 130->40 @9x5"])
@pytest.mark.parametrize("bits", ["W2A2", "W1A4"])
def test_words_and_steps_are_exact_and_cycles_near(layer, bits):
    program = compile_conv(sample_layer(layer, bits), ACCELERATOR)
    model, verilog = (counters(program, ACCELERATOR, s) for s in ("functional", "verilog"))
    assert model == predicted(program, ACCELERATOR)
    for name in ("steps", "reads", "writes", "dram_bytes"):
        assert getattr(model, name) == getattr(verilog, name), name
    for name, bound in (("cycles", 0.1), ("compute", 0.1)):
        assert abs(getattr(model, name) / getattr(verilog, name) - 1) < bound, name


def test_a_large_layer_works_for_most_of_its_cycles():
    program = compile_conv(sample_layer("3x3 256->256 @14", "W2A2"), ACCELERATOR)
    found = predicted(program, ACCELERATOR)
    assert 0.9 < found.utilization(program.macs, ACCELERATOR) <= 1
    assert found.compute <= found.cycles and found.load <= found.cycles
    assert found.times(3).cycles == 3 * found.cycles
    assert found + found == found.times(2)
