"""The Verilog itself: its header, other tools than Verilator, and the popcount for synthesis."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tvm_bitenc.accelerator import Accelerator, load_accelerator
from tvm_bitenc.data import data_folder
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.vta import isa
from tvm_bitenc.vta.compile_layer import compile_conv
from tvm_bitenc.vta.verilator import VerilatorSimulator, parameters

RTL = data_folder("targets") / "vta" / "rtl"
SOURCES = sorted(str(path) for path in RTL.glob("*.v"))
SIZES = [
    load_accelerator(),
    Accelerator(channels=2, pixels=2, param_rows=256, act_rows=96, out_rows=300),
    Accelerator(channels=64, pixels=16, tap_rows=9),
    Accelerator(channels=1, pixels=1, depth=32, stages=1),
    Accelerator(channels=4, pixels=1, depth=256),
]


def tool(*command, **options) -> str:
    if not shutil.which(command[0]):
        pytest.skip(f"install {command[0]}")
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_header_is_of_this_instruction_set():
    assert (RTL / "isa.vh").read_text() == isa.verilog_header()


@pytest.mark.sweep(1)
@pytest.mark.parametrize("accelerator", SIZES, ids=["default", "small", "large", "least", "deep"])
def test_verilator_has_no_complaint(accelerator):
    tool(
        *("verilator", "--lint-only", "-Wall", "-Wno-DECLFILENAME", "--top-module", "accelerator"),
        *(f"-G{name}={value}" for name, value in parameters(accelerator).items()),
        *(f"-I{RTL}", RTL / "waive.vlt", *SOURCES),
    )


def test_verilator_has_no_complaint_of_the_bus():
    tool(
        *("verilator", "--lint-only", "-Wall", "-Wno-DECLFILENAME", "--top-module", "vta_axi"),
        *(f"-I{RTL}", f"-I{RTL / 'axi'}", RTL / "waive.vlt", *SOURCES),
        *sorted((RTL / "axi").glob("*.v")),
    )


@pytest.mark.parametrize("dm, dn, dk", [(2, 2, 64), (1, 1, 32)])
def test_yosys_elaborates(dm, dn, dk):
    tool(
        *("yosys", "-q", "-p"),
        f"read_verilog -sv -DSYNTHESIS -I{RTL} {' '.join(SOURCES)};"
        f" hierarchy -check -top accelerator -chparam DM {dm} -chparam DN {dn} -chparam DK {dk};"
        " proc; select -assert-none t:$dlatch; check -assert",
    )


def test_icarus_computes_the_same_in_as_many_cycles(tmp_path, random_layer, conv_layer, planes):
    accelerator = replace(load_accelerator(), latency=16)  # As in testbench.v.
    layer = random_layer(
        0, Encoding.signed(2), Encoding.unsigned(1), channels=3, out_channels=9, size=(4, 5),
        padding=1,
    )  # fmt: skip
    program = compile_conv(conv_layer(layer, 2), accelerator)
    memory = np.zeros(4096, np.uint64)
    memory[: program.memory_words] = program.image(planes(layer))
    (tmp_path / "memory.hex").write_text("\n".join(f"{int(word):016x}" for word in memory))
    bench = Path(__file__).with_name("testbench.v")
    tool("iverilog", "-g2012", "-Wall", f"-I{RTL}", "-o", tmp_path / "a.vvp", bench, *SOURCES)
    count = len(program.instructions)
    said = tool("vvp", tmp_path / "a.vvp", f"+instructions={count}", cwd=tmp_path)
    lines = (tmp_path / "result.hex").read_text().splitlines()
    found = np.array([int(x, 16) for x in lines if not x.startswith("//")], np.uint64)
    run = VerilatorSimulator(accelerator, memory).run_words(count)
    assert np.array_equal(found, memory)
    assert f"error 0 cycles {run.cycles}" in said


@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("first", [3, 6])
@pytest.mark.parametrize("width", [3, 8, 13, 16])
def test_counters_are_proved_to_count(width, first, stages, tmp_path):
    """For every input: Yosys proves that the tree of counters is a sum of bits.

    Of two stages the second cycle is proved, from any state on.
    """
    reference = f"""
    module reference(input clk, input [{width - 1}:0] bits, output [$clog2({width + 1})-1:0] count);
        wire [$clog2({width + 1})-1:0] sum = {" + ".join(f"bits[{i}]" for i in range(width))};
        delay #(.WIDTH($clog2({width + 1})), .CYCLES({stages - 1})) stage (
            .clk(clk), .value(sum), .delayed(count)
        );
    endmodule
    module counters(input clk, input [{width - 1}:0] bits, output [$clog2({width + 1})-1:0] count);
        popcount #(
            .WIDTH({width}), .FIRST({first}), .STAGES({stages}), .REGISTERED({2 * first})
        ) unit (.clk(clk), .bits(bits), .count(count));
    endmodule"""
    (tmp_path / "reference.v").write_text(reference)
    tool(
        *("yosys", "-q", "-p"),
        f"read_verilog -sv -DSYNTHESIS {RTL / 'popcount.v'} {RTL / 'delay.v'}"
        f" {tmp_path / 'reference.v'};"
        " hierarchy -check; proc; flatten; opt; miter -equiv reference counters both;"
        " hierarchy -top both; flatten; opt;"
        f" sat -verify -seq {stages} -prove-skip {stages - 1} -prove trigger 0 both",
    )


COUNTS = """
module counts #(parameter WIDTH = 64);
    reg clk;
    reg [WIDTH-1:0] bits;
    wire [$clog2(WIDTH+1)-1:0] three, six, later;
    integer i, j;
    popcount #(.WIDTH(WIDTH), .FIRST(3)) by_three (.clk(clk), .bits(bits), .count(three));
    popcount #(.WIDTH(WIDTH), .FIRST(6)) by_six (.clk(clk), .bits(bits), .count(six));
    popcount #(.WIDTH(WIDTH), .FIRST(3), .STAGES(2), .REGISTERED(6)) in_two_cycles (
        .clk(clk), .bits(bits), .count(later)
    );
    initial begin
        for (i = 0; i < 4000; i = i + 1) begin
            // All numbers of ones come: from none, over random words, to all.
            for (j = 0; j < WIDTH; j = j + 32) case (i % 4)
                0: bits[j +: 32] = $random;
                1: bits[j +: 32] = $random & $random & $random;
                2: bits[j +: 32] = $random | $random | $random;
            endcase
            if (i % 4 == 3) bits = {WIDTH{1'b1}} >> (i / 4 % (WIDTH + 1)) << (i / 260 % WIDTH);
            clk = 0;
            #1 clk = 1;
            #1 if (three !== $countones(bits) || six !== three || later !== three) begin
                $display("wrong for %h: %0d, %0d, %0d", bits, three, six, later);
                $finish;
            end
        end
        $display("equal");
    end
endmodule
"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [32, 64, 128, 256])
def test_counters_of_full_width_count(width, tmp_path):
    (tmp_path / "counts.v").write_text(COUNTS)
    tool(
        *("iverilog", "-g2012", "-DSYNTHESIS", "-s", "counts", f"-Pcounts.WIDTH={width}"),
        *("-o", tmp_path / "a.vvp", tmp_path / "counts.v", RTL / "popcount.v", RTL / "delay.v"),
    )
    assert tool("vvp", tmp_path / "a.vvp").strip() == "equal"
