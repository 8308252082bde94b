"""AXI4 and AXI4-Lite around the accelerator, against cocotbext-axi's models of a bus."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tvm_bitenc.accelerator import load_accelerator
from tvm_bitenc.data import data_folder
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.vta.compile_layer import compile_conv
from tvm_bitenc.vta.functional import FunctionalSimulator
from tvm_bitenc.vta.verilator import parameters

runner = pytest.importorskip("cocotb_tools.runner", reason="pip install 'tvm-bitenc[bus]'")
pytest.importorskip("cocotbext.axi", reason="pip install 'tvm-bitenc[bus]'")
pytestmark = pytest.mark.skipif(not shutil.which("iverilog"), reason="install iverilog")

RTL = data_folder("targets") / "vta" / "rtl"


@pytest.fixture
def simulate(tmp_path, monkeypatch):
    """``simulate(top, bench, **environment)`` runs all tests of a bench on a module."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))

    def simulate(top, bench, parameters=(), **environment):
        simulator = runner.get_runner("icarus")
        simulator.build(
            sources=sorted(RTL.rglob("*.v")),
            includes=[RTL, RTL / "axi"],
            hdl_toplevel=top,
            parameters=dict(parameters),
            build_args=["-g2012"],
            build_dir=tmp_path,
            timescale=("1ns", "1ps"),
            log_file=tmp_path / "build.log",
        )
        try:  # It exits where a test fails.
            simulator.test(
                hdl_toplevel=top,
                test_module=bench,
                build_dir=tmp_path,
                test_dir=tmp_path,
                extra_env=environment,
                log_file=tmp_path / "test.log",
            )
        except (SystemExit, RuntimeError):
            pytest.fail((tmp_path / "test.log").read_text()[-6000:])

    return simulate


SMALL = """
[array]
DM = 4
DK = 64
DN = 2
[buffers]
act = 64
weight = 64
param = 64
residual = 16
out = 64
tap = 16
pass = 8
[memory]
bus_bytes = 8
latency = 16
outstanding = 8
[queues]
instructions = 4
tokens = 4
"""


@pytest.fixture
def program(tmp_path, random_layer, conv_layer, planes):
    """Files of a small accelerator, and of a layer that is compiled for it."""
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    accelerator = load_accelerator(path)
    encodings = Encoding.signed(2), Encoding.unsigned(1)
    layer = random_layer(0, *encodings, channels=3, out_channels=9, size=(4, 5), padding=1)
    compiled = compile_conv(conv_layer(layer, 2), accelerator)
    image = compiled.image(planes(layer))
    expected, count = image.copy(), len(compiled.instructions)
    FunctionalSimulator(accelerator, expected).run_words(0, count)
    np.savez(tmp_path / "program.npz", image=image, expected=expected, count=count)
    return accelerator, dict(ACCELERATOR=str(path), PROGRAM=str(tmp_path / "program.npz"))


def test_whole_programs(simulate, program):
    """Registers, driver, interrupt, errors and resets, around the accelerator itself."""
    accelerator, files = program
    simulate("vta_axi", "bench_vta_axi", parameters(accelerator), **files)


def test_master(simulate):
    simulate("axi_master", "bench_axi_master")
