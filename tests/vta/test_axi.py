"""AXI4 and AXI4-Lite around the accelerator, against cocotbext-axi's models of a bus."""

import shutil
from pathlib import Path

import pytest

from tvm_bitenc.data import data_folder

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
            sources=sorted(RTL.glob("*.v")),
            includes=[RTL],
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


def test_master(simulate):
    simulate("axi_master", "bench_axi_master")
