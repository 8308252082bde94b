"""torch's own samples: no wrong number, no raw exception, no hang, as many passes as documented."""

import re
import subprocess
import sys

import pytest

from tests.suites.torch_opinfo import PAGE


@pytest.mark.slow
def test_samples_of_all_operators():
    """In a process of its own: a child of pytest's would inherit its threads."""
    command = [sys.executable, "-m", "tests.suites.torch_opinfo"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=PAGE.parents[1])
    assert run.returncode == 0, run.stderr[-3000:]
    counts = {kind: int(n) for n, kind in re.findall(r"(\d+) (\w+)", run.stdout.splitlines()[-1])}
    assert (counts["wrong"], counts["raw"], counts["hang"]) == (0, 0, 0), run.stdout[-5000:]
    documented = re.search(r"\| pass \| (\d+) \|", PAGE.read_text())
    # Samples, and what torch decomposes them into, change a little with its releases.
    assert documented and counts["pass"] >= 0.98 * int(documented[1])


def test_the_page_lists_all_that_is_taken():
    from tvm_bitenc.frontend.torch.operators import OPERATORS

    assert set(re.findall(r"`([\w.]+\.\w+)`", PAGE.read_text())) >= set(OPERATORS)
