"""``bitenc explain FILE``, as a user runs it."""

import json
import os
import subprocess
import sys
import zipfile

import pytest
import torch
from torch import nn

import tvm_bitenc as be
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


def test_nothing_is_unpickled(bitenc, file, tmp_path):
    """Neither objects of the archive's own, nor weights that say they are pickled."""
    path = tmp_path / "evil.pt2"
    path.write_bytes(file.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("net/data/constants/opaque_obj_0", b"cos\nsystem\n.")
    assert "holds pickled objects" in bitenc("explain", path)[0]
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


class Marker:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_weights_that_are_pickles(bitenc, file, tmp_path):
    """A weight's bytes replaced by a pickle that runs code: it never does."""
    path, marker = tmp_path / "evil.pt2", tmp_path / "ran"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("model_weights_config.json"):
                config = json.loads(content)
                for entry in config["config"].values():
                    entry["use_pickle"] = True
                content = json.dumps(config).encode()
            elif "/data/weights/weight_" in name:
                buffer = tmp_path / "weight"
                torch.save(Marker(marker), buffer)
                content = buffer.read_bytes()
            new.writestr(name, content)
    code, _ = bitenc("explain", path)
    assert code and not marker.exists()
