"""Counters by the cycle model against those of the Verilog."""

from dataclasses import replace

import pytest

from tests.vta.cases import needs_verilator
from tvm_bitenc.accelerator import load_accelerator
from tvm_bitenc.simulate.programs import counters
from tvm_bitenc.simulate.sample import sample_layer
from tvm_bitenc.vta.compile_layer import compile_conv
from tvm_bitenc.vta.counters import predicted

ACCELERATOR = load_accelerator()


@needs_verilator
@pytest.mark.parametrize(
    "layer", ["3x3 64->64 @14", "1x1 70->128 @7/2", "3x3 130->40 @9x5", "1x1 512->512 @1"]
)
@pytest.mark.parametrize("bits", ["W2A2", "W1A4"])
@pytest.mark.parametrize("latency", [1, 16, 100, 200])
def test_words_and_steps_are_exact_and_cycles_near(layer, bits, latency):
    accelerator = replace(ACCELERATOR, latency=latency)
    program = compile_conv(sample_layer(layer, bits), accelerator)
    model, verilog = (counters(program, accelerator, s) for s in ("functional", "verilog"))
    assert model == predicted(program, accelerator)
    for name in ("steps", "reads", "writes", "dram_bytes"):
        assert getattr(model, name) == getattr(verilog, name), name
    # Fewer reads may be outstanding than a latency of 200 cycles takes: the model is coarser there.
    near = 0.05 if latency <= 100 else 0.1
    for name, bound in (("cycles", near), ("compute", 0.02), ("load", 0.1), ("store", 0.02)):
        assert abs(getattr(model, name) / getattr(verilog, name) - 1) < bound, name


def test_a_large_layer_works_for_most_of_its_cycles():
    program = compile_conv(sample_layer("3x3 256->256 @14", "W2A2"), ACCELERATOR)
    found = predicted(program, ACCELERATOR)
    assert 0.9 < found.utilization(program.macs, ACCELERATOR) <= 1
    assert found.compute <= found.cycles and found.load <= found.cycles
    assert found.times(3).cycles == 3 * found.cycles
    assert found + found == found.times(2)
