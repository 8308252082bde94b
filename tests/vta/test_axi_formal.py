"""Bounded proofs of the AXI handshakes: targets/vta/formal/axi_*.v, by yosys-smtbmc and z3."""

import shutil
import subprocess

import pytest

from tvm_bitenc.data import data_folder

VTA = data_folder("targets") / "vta"
TOOLS = ("yosys", "yosys-smtbmc", "z3")
# Cycles from reset in which every behaviour is looked at, and in which each `cover` happens.
PROOFS = {"axi_read_proof": (9, 14), "axi_write_proof": (8, 15), "axi_lite_proof": (12, 12)}

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, TOOLS)), reason=f"install {', '.join(TOOLS)}"
)


@pytest.fixture
def model(tmp_path):
    """``model(top, read)``: a file of SMT-LIB; `read` may change a source on its way."""

    def model(top, read=lambda name, source: source):
        paths = [*sorted((VTA / "rtl").rglob("*.v")), VTA / "formal" / f"{top}.v"]
        for path in paths:
            (tmp_path / path.name).write_text(read(path.name, path.read_text()))
        sources = " ".join(str(tmp_path / path.name) for path in paths)
        script = (
            f"read_verilog -formal -sv -I{VTA / 'rtl'} -I{VTA / 'rtl' / 'axi'} {sources};"
            f" hierarchy -check -top {top};"
            " prep -flatten; memory_map; opt -full; async2sync; dffunmap; opt_clean;"
            f" write_smt2 -wires {tmp_path / top}.smt2"
        )
        subprocess.run(["yosys", "-q", "-p", script], check=True, capture_output=True)
        return tmp_path / f"{top}.smt2"

    return model


def smtbmc(path, steps, *options):
    """Whether all holds, or is reached, within so many cycles."""
    command = ["yosys-smtbmc", "-s", "z3", "--unroll", "--noprogress", "-t", str(steps)]
    done = subprocess.run([*command, *options, str(path)], capture_output=True, text=True)
    assert "Status: PASSED" in done.stdout or "Status: FAILED" in done.stdout, done.stdout
    return done.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("top", PROOFS)
def test_handshakes_are_proved(top, model):
    assert smtbmc(model(top), PROOFS[top][0])


@pytest.mark.parametrize("top", PROOFS)
def test_what_the_proofs_assume_can_happen(top, model):
    assert smtbmc(model(top), PROOFS[top][1], "-c")


BROKEN = [
    ("axi_read_proof", "burst.v", "        && next_address[PAGE_BITS-1:0] != 0", ""),
    ("axi_read_proof", "burst.v", "&& out_beats != BEATS\n", "\n"),
    ("axi_read_proof", "axi_read.v", "burst_ready && !ids_full", "burst_ready"),
    ("axi_read_proof", "stage.v", "if (advance) out_data", "out_data"),
    ("axi_write_proof", "axi_write.v", "sent + 1'b1 == sending_beats", "sent == sending_beats"),
    ("axi_write_proof", "axi_write.v", "!sending_empty && w_ready", "w_ready"),
    ("axi_lite_proof", "axi_lite.v", "(bvalid && !bready)", "1'b0"),
    ("axi_lite_proof", "axi_lite.v", "has_address && has_data && ", "has_address && "),
    ("axi_lite_proof", "registers.v", "configure = write && !busy", "configure = write"),
]


@pytest.mark.slow
@pytest.mark.parametrize("top, file, right, wrong", BROKEN)
def test_broken_handshakes_are_found(top, file, right, wrong, model):
    def read(name, source):
        assert name != file or right in source
        return source.replace(right, wrong) if name == file else source

    assert not smtbmc(model(top, read), PROOFS[top][0])
