"""Automatic bits: within the budget, and better than equal bits."""

import pytest

import tvm_bitenc as be
from tvm_bitenc.errors import BitencError, TargetError
from tvm_bitenc.frontend.ptq import report_of
from tvm_bitenc.frontend.ptq.search import predicted_cost
from tvm_bitenc.frontend.ptq.torch_model import TorchModel
from tvm_bitenc.target import load_target

X86 = "x86-64-v3"


def report(digits, *bits, **options):
    options = {"progress": False, "first_last_bits": None, **options}
    return report_of(be.quantize(digits.model, digits.batches, *bits, **options))


@pytest.mark.parametrize("uniform_bits", [1, 2])
def test_a_budget_of_weight_bytes_beats_equal_bits(uniform_bits, digits):
    """The budget is a quarter of the way to the next number of bits, so equal bits can't use it."""
    uniform, above = (report(digits, bits, 4) for bits in (uniform_bits, uniform_bits + 1))
    budget = (3 * uniform.weight_bytes + above.weight_bytes) // 4
    chosen = report(digits, 8, 4, bits="auto", weight_bytes=budget)
    assert chosen.weight_bytes <= budget
    assert chosen.output_error < 0.9 * uniform.output_error
    assert {row.act_bits for row in chosen.layers} == {4}


@pytest.mark.slow
def test_at_the_size_of_equal_bits_it_is_never_worse(digits):
    for bits in (1, 3):
        uniform = report(digits, bits, 4)
        chosen = report(digits, 8, 4, bits="auto", weight_bytes=uniform.weight_bytes)
        assert chosen.weight_bytes <= uniform.weight_bytes
        assert chosen.output_error <= uniform.output_error


@pytest.mark.slow
def test_an_error_budget_is_kept_with_fewer_bytes(digits, tmp_path):
    sizes = []
    for error in (0.1, 0.001):
        chosen = report(digits, bits="auto", error=error, checkpoint=tmp_path / "run.json")
        assert error / 10 < chosen.output_error <= error
        sizes.append(chosen.weight_bytes)
    assert sizes == sorted(sizes) and sizes[-1] < report(digits).weight_bytes
    with pytest.raises(BitencError, match=r"error budget is 1e-12.*most bits the error is"):
        report(digits, bits="auto", error=1e-12)


def test_a_latency_budget_is_kept(digits, tmp_path):
    target = load_target(X86, None)
    model = TorchModel(digits.model, digits.batches)
    layers = {layer.name: layer for layer in model.layers}

    def cost(rows):
        found = 0.0
        for row in rows:
            layer, bits = layers[row.name], (row.weight_bits, row.act_bits)
            found += predicted_cost(layer, model.shapes[layer.input], bits, target)
        return found

    most = cost(report(digits).layers)
    errors = []
    for share in (0.5, 0.3):
        # What was measured for one budget serves the others.
        options = dict(bits="auto", target=X86, checkpoint=tmp_path / "run.json")
        chosen = report(digits, latency=share, **options)
        assert cost(chosen.layers) <= share * most
        errors.append(chosen.output_error)
    assert errors == sorted(errors)


def test_layers_with_given_bits_have_no_choice(digits):
    options = dict(bits="auto", weight_bytes=22000, first_last_bits=8)
    rows = {row.name: row.weight_bits for row in report(digits, 8, 4, **options).layers}
    assert rows["conv1"] == rows["classifier"] == 8 and rows["conv2"] < 8


def test_budgets_that_cannot_be_met_are_named(digits):
    with pytest.raises(BitencError, match=r"budget is 100.*need 9608"):
        report(digits, bits="auto", weight_bytes=100)
    with pytest.raises(BitencError, match=r"budget is 0\.01.*need 0\.\d+"):
        report(digits, 2, 2, bits="auto", latency=0.01, target=X86)
    with pytest.raises(TargetError, match="pentium"):
        report(digits, bits="auto", latency=0.5, target="pentium")
