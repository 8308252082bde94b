"""ONNX's backend tests: none is wrong, none crashes or hangs, and as many pass as the page says."""

from collections import Counter

import pytest

pytest.importorskip("onnx", reason="pip install onnx")

from tests.suites.onnx_backend import cases, outcomes, stated_passes


@pytest.mark.slow
def test_every_test_of_the_domain():
    tests = cases()
    found = outcomes(tests)
    faults = [
        f"{outcome.kind} {case.name}: {outcome.detail}"
        for case, outcome in zip(tests, found)
        if outcome.kind not in ("pass", "refused")
    ]
    assert not faults, "\n".join(faults)
    assert Counter(outcome.kind for outcome in found)["pass"] >= stated_passes()


def test_the_domain_has_both_ways_to_feed():
    names = [case.name for case in cases("test_gather_")]
    assert "test_gather_0, fed" in names and "test_gather_0, constant" in names


def test_a_wrong_number_is_told():
    case = next(case for case in cases("test_add") if case.name == "test_add, fed")
    (inputs, outputs), *_ = case.data
    changed = type(case)(case.name, case.model, ((inputs, [outputs[0] + 1]),), 1e-3, 1e-3)
    assert [outcome.kind for outcome in outcomes([case, changed])] == ["pass", "wrong"]
