"""Whole runs on the digits: accuracy, resuming, and what the user may say per layer."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import tvm_bitenc as be
from tvm_bitenc.errors import BitencError
from tvm_bitenc.frontend.ptq import report_of


def quantize(digits, *bits, **options):
    return be.quantize(digits.model, digits.batches, *bits, **{"progress": False, **options})


@pytest.mark.slow
@pytest.mark.parametrize("bits, points", [((8, 8), 0.005), ((4, 4), 0.02)])
def test_digits_lose_little_accuracy(bits, points, digits):
    expected = digits.accuracy(digits.model)
    assert expected > 0.99
    assert digits.accuracy(quantize(digits, *bits)) >= expected - points


@pytest.mark.slow
def test_each_rounding_beats_the_one_before(digits):
    """At 2 bits, where rounding counts most."""
    results = [quantize(digits, 2, 4, rounding=how) for how in ("nearest", "bias", "adaround")]
    errors = [report_of(result).output_error for result in results]
    assert errors[0] > errors[1] > 3 * errors[2]
    assert digits.accuracy(results[2]) >= digits.accuracy(digits.model) - 0.02


@pytest.mark.slow
def test_more_bits_make_smaller_errors(digits):
    reports = [report_of(quantize(digits, bits, bits)) for bits in (1, 2, 4, 8)]
    errors = np.array([[row.error for row in report.layers] for report in reports])
    assert (np.diff(errors[:, 1:3], axis=0) < 0).all()
    outputs = [report.output_error for report in reports]
    assert outputs == sorted(outputs, reverse=True) and outputs[-1] < 1e-4
    # The first layer's error is its own alone; the others inherit.
    row = reports[1].layers[0]
    assert row.error == pytest.approx(row.total_error, rel=1e-3)
    assert all(row.total_error > row.error for row in reports[1].layers[2:])


@pytest.mark.slow
@pytest.mark.parametrize("options", [dict(rounding="adaround"), dict(bits="auto", error=0.1)])
def test_an_interrupted_run_goes_on_to_the_same_result(options, digits, tmp_path):
    path, calls = tmp_path / "run.json", []
    batches = digits.batches[:1]
    run = dict(weight_bits=3, act_bits=4, checkpoint=path, **options)

    def interrupt(done, total, description):
        calls.append(description)
        if len(calls) == interrupted_at:
            raise KeyboardInterrupt

    def state_of(**more):
        result = be.quantize(digits.model, batches, **{**run, "progress": False, **more})
        return result.state_dict(), report_of(result)

    state, report = state_of(checkpoint=None)
    interrupted_at = 5
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            be.quantize(digits.model, batches, progress=interrupt, **run)
        interrupted_at += len(calls)
        assert json.loads(path.read_text())["steps"]
        calls.clear()
        interrupted_at = 6
    resumed, resumed_report = state_of()
    assert resumed_report == report and list(resumed) == list(state)
    assert all(torch.equal(resumed[name], state[name]) for name in state)
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_finished_steps_are_not_done_again(digits, tmp_path, monkeypatch):
    options = dict(bits="auto", error=0.1, checkpoint=tmp_path / "run.json")
    expected = report_of(quantize(digits, 3, 4, **options))
    monkeypatch.setattr("tvm_bitenc.frontend.ptq.run.quantize_layer", lambda *_: 1 / 0)
    assert report_of(quantize(digits, 3, 4, **options)) == expected
    for other in (dict(rounding="nearest"), dict(seed=1), dict(skip="conv1")):
        with pytest.raises(BitencError, match=r"another model.*other settings"):
            quantize(digits, 3, 4, **options, **other)


def test_learned_codes_of_finished_layers_are_those_of_the_file(digits, tmp_path, monkeypatch):
    options = dict(rounding="adaround", skip="conv2", checkpoint=tmp_path / "run.json")
    expected = quantize(digits, 2, 4, **options).state_dict()
    monkeypatch.setattr("tvm_bitenc.frontend.ptq.run.quantize_layer", lambda *_: 1 / 0)
    resumed = quantize(digits, 2, 4, **options).state_dict()
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_model(digits):
    run = dict(rounding="adaround", skip=["conv2"], weight_bits=2, act_bits=2)
    states = [quantize(digits, **run, seed=seed).state_dict() for seed in (1, 1, 2)]
    same = [all(torch.equal(states[0][n], other[n]) for n in other) for other in states[1:]]
    assert same == [True, False]


def test_bits_and_exceptions_per_layer(digits):
    result = quantize(digits, 3, 4, bits={"conv2": (2, 5), "conv1": (7, 6)}, skip="class*")
    report = report_of(result)
    rows = [(row.name, row.weight_bits, row.act_bits) for row in report.layers]
    assert rows == [("conv1", 7, 6), ("conv2", 2, 5), ("conv3", 8, 8)]
    assert report.float_layers == [("classifier", "skipped on request")]
    plain = report_of(quantize(digits, 3, 4, first_last_bits=None))
    assert {(row.weight_bits, row.act_bits) for row in plain.layers} == {(3, 4)}


@pytest.mark.parametrize(
    "options",
    [dict(), dict(bits="auto", error=1.0), dict(bits="auto", weight_bytes=20000)],
    ids=str,
)
def test_progress_counts_up_to_its_total(options, digits):
    seen = []
    quantize(digits, 2, 2, progress=lambda *step: seen.append(step), **options)
    assert [done for done, _, _ in seen] == list(range(1, len(seen) + 1))
    assert seen[-1][1] == len(seen) and "conv2" in [text for _, _, text in seen]


def test_the_report_has_sizes_and_text(digits):
    report = report_of(quantize(digits, 2, 4))
    assert [row.weight_bytes for row in report.layers] == [576, 9216, 9216, 2560]
    assert report.float_bytes == 4 * (576 + 2 * 36864 + 2560)
    text = str(report)
    assert "conv2" in text and "W2A4" in text and "dB" in text


def test_wrong_names_and_nothing_to_quantize_are_named(digits):
    with pytest.raises(BitencError, match=r"layers \['conv9'\].*layers are conv1, conv2"):
        quantize(digits, bits={"conv9": (2, 2)})
    with pytest.raises(BitencError, match=r"no layer to quantize.*skipped on request"):
        quantize(digits, skip="*")
    with pytest.raises(BitencError, match=r"no layer to quantize"):
        be.quantize(nn.ReLU().eval(), [torch.rand(1, 3)], progress=False)


class Logarithm(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)

    def forward(self, x):
        return self.conv(torch.log(x))


def test_infinity_inside_the_network_is_named():
    with pytest.raises(BitencError, match=r"tensor 'log': has NaN or infinity"):
        be.quantize(Logarithm().eval(), [torch.zeros(1, 1, 2, 2)], progress=False)
