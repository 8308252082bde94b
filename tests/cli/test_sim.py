"""``bitenc sim``, as a user runs it."""

import json
import xml.etree.ElementTree as ET

import pytest
import torch
from torch import nn

from tests.vta.cases import needs_verilator
from tvm_bitenc.nn import QConv2d

pytest.importorskip("matplotlib", reason="pip install 'tvm-bitenc[report]'")
TWO = dict(weight_bits=2, act_bits=2)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Layers for the accelerator, one of them depthwise."""
    path = tmp_path_factory.mktemp("models") / "net.pt2"
    torch.manual_seed(0)
    layers = QConv2d(3, 8, 3, **TWO), QConv2d(8, 8, 3, groups=8, **TWO), QConv2d(8, 9, 1, **TWO)
    model = nn.Sequential(*layers).eval()
    torch.export.save(torch.export.export(model, (torch.randn(1, 3, 8, 8),)), path)
    return path


def test_a_layer_and_its_picture(bitenc, tmp_path):
    picture = tmp_path / "layer.svg"
    code, printed = bitenc("sim", "--layer", "3x3 64->64 @7", "--bits", "W1A2", "--trace", picture)
    assert not code and not printed.err
    assert "3x3 64->64 @7 W1A2" in printed.out and "by the cycle model" in printed.out
    assert ET.parse(picture).getroot().tag.endswith("svg")


def test_a_network_as_json(bitenc, file):
    code, printed = bitenc("sim", file, "--json")
    content = json.loads(printed.out)
    assert not code and [layer["name"] for layer in content["layers"]] == ["0", "1", "2"]
    for total in ("cycles", "dram_bytes", "binary_macs"):
        parts = [layer[total] for layer in content["layers"]]
        assert all(part > 0 for part in parts)
        assert total == "binary_macs" or content[total] == sum(parts)
    assert 0 < content["utilization"] < 1


@needs_verilator
def test_the_verilog_counts(bitenc):
    options = "--layer", "3x3 64->64 @7", "--json"
    model, verilog = (
        json.loads(bitenc("sim", *options, "--simulator", simulator)[1].out)
        for simulator in ("functional", "verilog")
    )
    assert verilog["layers"][0]["is_measured"] and not model["layers"][0]["is_measured"]
    assert model["dram_bytes"] == verilog["dram_bytes"]
    assert abs(model["cycles"] / verilog["cycles"] - 1) < 0.05


def test_assembly(bitenc):
    _, printed = bitenc("sim", "--layer", "1x1 64->8 @3", "--assembly")
    assert printed.out.startswith("# 1x1 64->8 @3 W2A2\nload buffer=tap")
    assert "\nfinish pop_next=1\n" in printed.out


@pytest.mark.parametrize(
    "options, message",
    [
        (["--layer", "64->64"], "layer '64->64': can't be read"),
        (["--layer", "3x3 8->8 @4/0"], "'3x3 8->8 @4/0': can't be read"),
        (["--layer", "3x3 8->8 @4 tiles=0"], "tiles=0': can't be read"),
        (["--layer", "3x3 8->9 @4 tiles=2"], "9 output channels aren't 2 tiles"),
        (["--bits", "W9A1"], "'W9A1': can't be read"),
        (["--target", "native"], "is no accelerator"),
        (["--simulator", "spice"], "'spice': isn't known"),
        (["--trace", "a.txt"], "its ending names no picture"),
        (["--layer", "3x3 8->8 @2000"], "doesn't fit|act buffer"),
    ],
)
def test_errors_are_one_line(options, message, bitenc):
    import re

    code, printed = bitenc("sim", *options)
    assert re.search(message, str(code)) and "\n" not in str(code) and not printed.out
