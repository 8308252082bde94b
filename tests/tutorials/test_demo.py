"""The demo: what it counts, what it shows, and that it notices a wrong integer."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

for package in ("rich", "sklearn", "matplotlib", "jinja2"):
    pytest.importorskip(package, reason="pip install 'tvm-bitenc[report]'")

TUTORIALS = Path(__file__).parents[2] / "tutorials"


@pytest.fixture(scope="module")
def demo():
    sys.path.insert(0, str(TUTORIALS))
    threads = torch.get_num_threads()
    try:
        import demo

        yield demo
    finally:
        sys.path.remove(str(TUTORIALS))
        torch.set_num_threads(threads)
        for name in ("demo", "digits"):
            sys.modules.pop(name, None)


def test_logits_are_integers_times_their_scale(demo):
    scale = np.float32([0.1, 0.3])
    integers = np.array([[3, -5], [2**22, 0]])
    logits = (integers * scale.astype(np.float64)).astype(np.float32)
    assert np.array_equal(demo.integer_logits(logits, scale), integers)
    with pytest.raises(ValueError, match="no integer multiple"):
        demo.integer_logits(np.float32([[0.15, 0.3]]), scale)


@pytest.fixture
def quick(demo, monkeypatch):
    """The demo's data, but few held-out images."""
    x_train, y_train, x_test, y_test = demo.digits.load_digits()
    few = (x_train[:256], y_train[:256], x_test[:30], y_test[:30])
    monkeypatch.setattr(demo.digits, "load_digits", lambda: few)
    return demo


@pytest.mark.slow
def test_it_prints_a_table_and_writes_a_page(quick, tmp_path, capsys):
    page = tmp_path / "deep" / "demo.html"
    assert quick.main(["--epochs", "1", "--out", str(page)]) == 0
    printed, written = capsys.readouterr().out, page.read_text(encoding="utf-8")
    assert printed.count("30 of 30") == written.count("30 of 30") == 3
    for name in ("W4A4", "W2A2", "W1A1"):
        assert name in printed and f"Layers of {name}" in written
    assert written.count('src="data:image/png;base64,') == 1
    assert not re.search(r"https?://", written)
    assert str(page) in printed.replace("\n", "")


def test_a_wrong_integer_is_an_error(quick, tmp_path, capsys, monkeypatch):
    right, train = quick.reference_integers, quick.digits.train_route
    monkeypatch.setattr(quick, "train_all", lambda epochs, data: train((1,), data, epochs))
    monkeypatch.setattr(quick, "reference_integers", lambda *a: right(*a) + (np.arange(10) == 3))
    assert quick.main(["--epochs", "1", "--out", str(tmp_path / "demo.html")]) == 1
    assert "integer logits differ from torch's: W1A1" in capsys.readouterr().out
