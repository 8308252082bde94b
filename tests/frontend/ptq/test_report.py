"""The quantization report: to JSON and back, its table, and models that carry none."""

import pytest
import torch
from torch import nn

from tvm_bitenc.errors import BitencError
from tvm_bitenc.frontend.ptq import QuantizationReport, QuantizedRow, report_of
from tvm_bitenc.frontend.ptq.report import ErrorMeter, decibels

REPORT = QuantizationReport(
    [QuantizedRow("a.0", "conv2d", 4, 8, 4000, 500, 0.001, 0.01)], [("b", "because")], 0.1
)


def test_json_keeps_everything():
    assert QuantizationReport.from_json(REPORT.to_json()) == REPORT


def test_the_table_has_every_layer_and_reason():
    lines = str(REPORT).splitlines()
    assert lines[2].split() == ["a.0", "conv2d", "W4A8", "4,000", "500", "30.0", "dB", "20.0", "dB"]
    assert lines[3].split() == ["network", "4,000", "500", "10.0", "dB"]
    assert lines[4] == "float: b: because"


def test_errors_are_relative_to_power_over_all_batches():
    meter = ErrorMeter()
    meter.add({"y": torch.ones(2)}, {"y": torch.tensor([1.0, 2.0])}, ["y"])
    meter.add({"y": torch.full((2,), 3.0)}, {"y": torch.full((2,), 3.0)}, ["y"])
    assert meter.error("y") == pytest.approx(1 / 20) and meter.mean(["y"]) == meter.error("y")
    assert decibels(0) == "exact"


@pytest.mark.parametrize("model", [nn.ReLU(), None, torch.fx.symbolic_trace(nn.ReLU())], ids=repr)
def test_models_without_a_report(model):
    with pytest.raises(BitencError, match=r"carries no report"):
        report_of(model)
