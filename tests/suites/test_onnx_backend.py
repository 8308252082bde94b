"""ONNX's backend tests: none is wrong, none crashes or hangs, and as many pass as the page says."""

import re
import subprocess
import sys

import pytest

pytest.importorskip("onnx", reason="pip install onnx")

from tests.suites.onnx_backend import PAGE, cases, outcomes, stated_passes


@pytest.mark.slow
def test_every_test_of_the_domain():
    """In a process of its own: a child of pytest's would inherit its threads."""
    command = [sys.executable, "-m", "tests.suites.onnx_backend"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=PAGE.parents[1])
    assert run.stdout, run.stderr[-3000:]
    counts = {kind: int(n) for n, kind in re.findall(r"(\d+) (\w+)", run.stdout.splitlines()[-1])}
    assert (counts["wrong"], counts["raw"], counts["hang"]) == (0, 0, 0), run.stdout[-5000:]
    assert counts["pass"] >= stated_passes()


@pytest.mark.slow  # ONNX's own tests take long to read.
def test_the_domain_has_both_ways_to_feed():
    names = [case.name for case in cases("test_gather_")]
    assert "test_gather_0, fed" in names and "test_gather_0, constant" in names


@pytest.mark.slow
def test_a_wrong_number_is_told():
    case = next(case for case in cases("test_add") if case.name == "test_add, fed")
    (inputs, outputs), *_ = case.data
    changed = type(case)(case.name, case.model, ((inputs, [outputs[0] + 1]),), 1e-3, 1e-3)
    assert [outcome.kind for outcome in outcomes([case, changed])] == ["pass", "wrong"]
