"""Explain: what becomes branches, what stays float, why, and the cure; without compiling."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from tvm import relax

import tvm_bitenc as be
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.explain import explain
from tvm_bitenc.nn import QConv2d, QLinear
from tvm_bitenc.op import quantize
from tvm_bitenc.report import FloatOps, Report

TWO = dict(weight_bits=2, act_bits=2)


class Mixed(nn.Module):
    """Quantized and float layers, a gate, and a head behind a softmax."""

    def __init__(self):
        super().__init__()
        self.stem = QConv2d(3, 8, 3, padding=1, **TWO)
        self.middle = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.gate, self.soft = nn.Sigmoid(), nn.Softmax(1)
        self.head = QLinear(4 * 8 * 8, 5, **TWO)

    def forward(self, x):
        x = self.up(self.middle(torch.relu(self.stem(x))))
        return self.head(self.soft(x * self.gate(x)).flatten(1))


@pytest.fixture(scope="module")
def mod():
    return be.from_torch(Mixed().eval(), (torch.randn(1, 3, 4, 4),))


def test_layers(mod):
    report = explain(mod)
    assert [(r.name, r.weight_bits, r.act_bits) for r in report.layers] == [
        ("stem", 2, 2),
        ("head", 2, 2),
    ]
    assert all(row.strategy for row in report.layers)
    middle, up = report.float_layers
    assert (middle.name, middle.macs) == ("middle", 8 * 4 * 4 * 4 * 9)
    assert middle.reason == "its input isn't quantized: it comes from relu"
    assert "Put a quantizer between" in middle.cure
    assert (up.name, up.macs) == ("up", 8 * 4 * 4 * 4 * 2 * 2)
    quantized = 8 * 3 * 9 * 16 + 4 * 64 * 5
    total = quantized + middle.macs + up.macs
    assert report.quantized_share == pytest.approx(quantized / total)


def test_other_float_arithmetic(mod):
    ops = {found.op: found for found in explain(mod).float_ops}
    assert ops["softmax"] == FloatOps("softmax", 1, ["soft"])
    assert ops["sigmoid"] == FloatOps("sigmoid", 1, ["gate"])
    assert "conv2d" not in ops and "reshape" not in ops


def test_it_is_the_report_of_a_build(mod):
    assert explain(mod) == be.build(mod).report()
    assert explain(mod, "x86-64-v3").target == "x86-64-v3"


def test_text_and_dictionary(mod):
    report = explain(mod)
    text = str(report)
    assert "float: middle (4,608 MACs): its input isn't quantized" in text
    assert "float: 1 x softmax in soft" in text
    assert f"{100 * report.quantized_share:.1f} % of the multiply-accumulates" in text
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_reports_of_older_libraries_are_read():
    content = {"target": "t", "layers": [], "float_layers": [{"name": "a", "reason": "b"}]}
    assert Report.from_dict(content).float_layers[0].macs == 0
    assert Report("t").quantized_share == 1.0


def test_signs_that_take_two_bits():
    class Signs(nn.Module):
        def __init__(self, sign):
            super().__init__()
            self.sign, self.fc = sign, nn.Linear(8, 4)

        def forward(self, x):
            return nn.functional.linear(self.sign(x), torch.sign(self.fc.weight))

    x = torch.randn(2, 8)
    (note,) = explain(be.from_torch(Signs(torch.sign), (x,))).notes
    assert "takes 2 bits" in note and "torch.where" in note
    better = be.from_torch(Signs(lambda v: torch.where(v >= 0, 1.0, -1.0)), (x,))
    assert explain(better).notes == [] and explain(better).layers[0].act_bits == 1


@pytest.mark.parametrize("alpha, count", [(0.3, 1), (0.25, 0)])
def test_scales_that_lie_in_stored_weights(alpha, count):
    """Products by a power of two aren't rounded: then the sums are the framework's."""
    fc = nn.Linear(8, 4)
    with torch.no_grad():
        fc.weight.copy_(torch.sign(fc.weight) * alpha)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = fc

        def forward(self, x):
            return self.fc((x / 0.25).round().clamp(0, 15) * 0.25)

    report = explain(be.from_torch(Net(), (torch.rand(2, 8),)))
    assert [row.weight_bits for row in report.layers] == [1] and len(report.notes) == count
    assert all(note.startswith("fc: its weights are floats, recognised") for note in report.notes)


def test_bits_of_weights_and_operations():
    bits = dict(weight_bits=1, act_bits=2)
    plain, tiled = (
        explain(be.from_torch(QLinear(64, 64, tiles=p, **bits).eval(), (torch.rand(1, 64),)))
        for p in (1, 4)
    )
    (plain,), (tiled,) = plain.layers, tiled.layers
    assert (plain.macs, tiled.macs) == (4096, 4096)
    assert (plain.bit_operations, tiled.bit_operations) == (8192, 2048)
    assert tiled.bits_per_weight == 0.25 and tiled.to_dict()["bits_per_weight"] == 0.25


def test_what_build_refuses_is_listed(random_layer, module_of):
    act, weight = Encoding.unsigned(2, 0.5), Encoding.symmetric(3, 0.25)
    layer = random_layer(0, weight, act, name="good")
    per_channel = Encoding(2, np.arange(1.0, 9.0), 0.0)

    def body(builder, x):
        a = builder.emit(quantize(x, per_channel, axis=1))
        values = relax.const(layer.weight_codes.astype("f4"))
        w = builder.emit(quantize(values, weight, layer="bad"))
        return [layer.emit(builder, x), builder.emit(relax.op.nn.conv2d(a, w))]

    report = explain(module_of([layer.act_codes.shape], body))
    assert [row.name for row in report.layers] == ["good"]
    (left,) = report.float_layers
    assert "scale per channel" in left.reason and left.cure == "Quantize activations per tensor"


def test_a_module_without_layers(module_of):
    report = explain(module_of([(2, 3)], lambda b, x: b.emit(relax.op.sigmoid(x))))
    assert not report.layers and [ops.op for ops in report.float_ops] == ["sigmoid"]


def test_page(mod, tmp_path):
    pytest.importorskip("jinja2", reason="pip install 'tvm-bitenc[report]'")
    page = explain(mod).to_html(tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Stayed float: middle" in page and "1 x softmax in soft" in page
