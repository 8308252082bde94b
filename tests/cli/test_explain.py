"""``bitenc explain FILE``, as a user runs it."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

import tvm_bitenc as be
from tests import archives
from tvm_bitenc.explain import explain
from tvm_bitenc.nn import QConv2d

pytest.importorskip("typer", reason="pip install 'tvm-bitenc[cli]'")


@pytest.fixture(scope="module")
def model():
    """A quantized and a float layer, and its input."""
    torch.manual_seed(0)
    parts = QConv2d(3, 8, 3, weight_bits=2, act_bits=2), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Sigmoid()
    return nn.Sequential(*parts).eval(), torch.randn(1, 3, 6, 6)


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "net.pt2"
    torch.export.save(torch.export.export(model[0], (model[1],)), path)
    return path


def test_tables(bitenc, file):
    code, printed = bitenc("explain", file)
    assert not code and not printed.err
    for text in ("W2A2", "Layers that stay float", "it comes from relu", "sigmoid",
                 "87.1 % of the multiply-accumulates run on codes."):  # fmt: skip
        assert text in printed.out


def test_json(bitenc, file, model):
    code, printed = bitenc("explain", file, "--json", "--target", "x86-64-v3")
    content, report = json.loads(printed.out), explain(be.from_torch(*model), "x86-64-v3")
    share = content.pop("quantized_share")
    assert not code and content == json.loads(json.dumps(report.to_dict()))
    assert share == report.quantized_share


ONNX = """<ir_version: 9, opset_import: ["" : 17]>
net (float[1, 1, {size}, {size}] x) => (float[1, 1, {size}, {size}] y)
<float[1, 1, 1, 1] w = {{1}}> {{ c = Conv(x, w)  y = Relu(c) }}"""


def test_onnx(bitenc, tmp_path):
    onnx = pytest.importorskip("onnx", reason="pip install 'tvm-bitenc[onnx]'")
    path = tmp_path / "net.onnx"
    for size, options in (8, []), ("N", ["--shape", "x=1,1,8,8"]):
        onnx.save(onnx.parser.parse_model(ONNX.format(size=size)), path)
        code, printed = bitenc("explain", path, *options, "--json")
        (left,) = json.loads(printed.out)["float_layers"]
        assert not code and left["macs"] == 64 and "input of the network" in left["reason"]
    assert "dynamic" in bitenc("explain", path)[0]
    assert "isn't name=sizes" in bitenc("explain", path, "--shape", "x=big")[0]


def test_as_a_program(file):
    script = "from tvm_bitenc.cli import main; main()"
    command = [sys.executable, "-c", script, "explain", str(file.with_name("missing.pt2"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("bitenc: ") and "there is no such file" in line


def test_wrong_arguments(bitenc):
    assert bitenc("explain")[0] == 2
    assert bitenc("compile-everything")[0] == 2
    code, printed = bitenc("--help")
    assert code == 0 and "explain" in printed.out


def test_files_that_are_no_models(bitenc, file, tmp_path):
    damaged, text = tmp_path / "damaged.pt2", tmp_path / "notes.txt"
    damaged.write_bytes(file.read_bytes()[:1000])
    text.write_text("hello")
    for path, reason in [(damaged, "isn't an exported program"), (text, ".txt names no model")]:
        code, printed = bitenc("explain", path)
        assert reason in code and "\n" not in code and "Traceback" not in printed.err
    assert "fixed by torch.export" in bitenc("explain", file, "--shape", "x=1,3,6,6")[0]
    assert "there is no such name" in bitenc("explain", file, "--target", "z80")[0]


@pytest.mark.parametrize("attack", archives.ATTACKS, ids=lambda attack: attack.__name__)
def test_archives_that_would_run_code(attack, bitenc, tmp_path, monkeypatch):
    path, mark = archives.good_archive(tmp_path / "net.pt2"), tmp_path / "ran"
    monkeypatch.syspath_prepend(tmp_path)
    archive = archives.Archive(path)
    attack(archive, str(mark))
    code, printed = bitenc("explain", archive.write(path))
    assert not mark.exists()
    assert code.startswith(f"bitenc: {path}") and "\n" not in code and not printed.err
