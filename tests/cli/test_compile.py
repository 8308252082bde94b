"""``bitenc compile``, ``run``, ``bench`` and ``report``, as a user runs them."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import tvm_bitenc as be
from tvm_bitenc.nn import QConv2d

pytest.importorskip("jinja2", reason="pip install 'tvm-bitenc[report]'")


@pytest.fixture(scope="module")
def network():
    """A quantized and a float layer, and an input."""
    torch.manual_seed(0)
    parts = QConv2d(3, 8, 3, weight_bits=2, act_bits=2), nn.ReLU(), nn.Conv2d(8, 4, 1)
    return nn.Sequential(*parts).eval(), torch.randn(1, 3, 6, 6)


@pytest.fixture(scope="module")
def model(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "net.pt2"
    torch.export.save(torch.export.export(network[0], (network[1],)), path)
    return path


@pytest.fixture(scope="module")
def library(network, model):
    return be.build(be.from_torch(*network)).export_library(model.with_name("made.so"))


def test_compile_writes_a_library(bitenc, model, network, tmp_path):
    path, page = tmp_path / "net.so", tmp_path / "net.html"
    code, printed = bitenc("compile", model, "-o", path, "--html", page, "--json")
    content = json.loads(printed.out)
    assert not code and content["library"] == str(path)
    assert content["bytes"] == path.stat().st_size
    lib, x = be.load(path), network[1]
    assert content["report"] == json.loads(json.dumps(lib.report().to_dict()))
    assert np.array_equal(lib(x), be.build(be.from_torch(*network))(x))
    assert "it comes from relu" in page.read_text(encoding="utf-8")


def test_compile_says_what_it_did(bitenc, model, tmp_path):
    path = tmp_path / "net.so"
    dump = tmp_path / "passes"
    code, printed = bitenc("compile", model, "-o", path, "--strategy", "xnor", "--dump", dump)
    assert not code and "xnor" in printed.out and str(path) in printed.out.replace("\n", "")
    assert "Layers that stay float" in printed.out and not printed.err
    assert "bitenc.quantize" in (dump / "01_Canonicalize.py").read_text(encoding="utf-8")


def test_run_gives_what_the_library_computes(bitenc, library, network, tmp_path):
    given, got = tmp_path / "x.npy", tmp_path / "y.npy"
    np.save(given, network[1].numpy())
    code, printed = bitenc("run", library, "--input", given, "-o", got, "--json")
    expected = be.load(library)(network[1])
    (row,) = json.loads(printed.out)
    assert not code and np.array_equal(np.load(got), expected)
    assert row["shape"] == [1, 4, 4, 4] and row["largest"] == float(expected.max())
    code, printed = bitenc("run", library, "-o", tmp_path / "all.npz")
    assert not code and "float32 [1, 4, 4, 4]" in printed.out
    assert [array.shape for array in np.load(tmp_path / "all.npz").values()] == [(1, 4, 4, 4)]


def test_bench_times_layers(bitenc, library, model):
    code, printed = bitenc("bench", library, "--number", "2", "--repeat", "3", "--json")
    content = json.loads(printed.out)
    assert not code and len(content["seconds"]) == 3 and content["best"] == min(content["seconds"])
    assert [layer["name"] for layer in content["layers"]] == ["0", "everything between layers"]
    code, printed = bitenc("bench", model, "--number", "1", "--repeat", "1", "--threads", "1")
    assert not code and "per run at best" in printed.out and "█" in printed.out


def test_report(bitenc, library, tmp_path):
    page = tmp_path / "report.html"
    code, printed = bitenc("report", library, "--html", page, "--accuracy", "71.2 %", "--json")
    content, written = json.loads(printed.out), page.read_text(encoding="utf-8")
    assert not code and content["seconds"] > 0 and content["layers"][0]["weight_bits"] == 2
    assert "71.2 %" in written and "Time per layer" in written
    code, printed = bitenc("report", library, "--no-time", "--html", page)
    assert not code and "us per run" not in printed.out
    assert "Time per layer" not in page.read_text(encoding="utf-8")


def test_report_of_two(bitenc, library, model, tmp_path):
    page = tmp_path / "both.html"
    code, printed = bitenc("report", "--compare", library, model, "--html", page)
    assert not code and "made.so" in printed.out and "net.pt2" in printed.out
    assert "made.so" in page.read_text(encoding="utf-8")
    code, printed = bitenc("report", "--compare", library, library, "--no-time", "--json")
    totals = {name: sides for name, *sides in json.loads(printed.out)["totals"]}
    assert not code and totals["layers on codes"] == ["1", "1"] and "per run" not in totals


def test_what_is_wrong_is_said(bitenc, library, model, tmp_path):
    text = tmp_path / "x.npy"
    text.write_text("no array")
    for arguments, reason in [
        (("run", tmp_path / "none.so"), "can't be read"),
        (("run", library, "--input", text), "isn't an array"),
        (("compile", library), "is no model"),
        (("compile", model, "--strategy", "fastest"), "fastest"),
        (("compile", model, "--target", "z80"), "there is no such name"),
    ]:
        code, printed = bitenc(*arguments)
        assert reason in code and "\n" not in code and "Traceback" not in printed.err
    for arguments in (("report",), ("report", library, "--compare", library, library), ("bench",)):
        assert bitenc(*arguments)[0] == 2


def test_every_command_has_help(bitenc):
    code, printed = bitenc("--help")
    assert code == 0
    for name in ("compile", "run", "bench", "report", "explain", "targets", "deploy", "doctor"):
        assert f" {name} " in printed.out
        assert bitenc(name, "--help")[0] == 0


def test_shell_completion():
    """As bash asks for it."""
    script = "from tvm_bitenc.cli import main; import sys; sys.argv[0] = 'bitenc'; main()"
    wanted = {
        "_BITENC_COMPLETE": "complete_bash",
        "COMP_WORDS": "bitenc compile --target x86",
        "COMP_CWORD": "3",
    }
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **wanted},
    )
    assert done.stdout.split() == ["x86-64-v3", "x86-64-v4"], done.stderr
