"""Networks on Fashion-MNIST: the data, and a run on a few of its images."""

import pytest
import torch

pytest.importorskip("rich", reason="pip install 'tvm-bitenc[bench]'")

from benchmarks import fashion


def test_the_data():
    if not fashion.FOLDER.exists():
        pytest.skip("apt-get install dataset-fashion-mnist")
    x_train, y_train, x_test, y_test = fashion.load_fashion()
    assert (len(x_train), len(x_test)) == (60_000, 10_000) and x_train.shape[1:] == (1, 28, 28)
    assert torch.equal(y_test.bincount(), torch.full((10,), 1000))
    assert (y_train[:3].tolist(), float(x_train.min()), float(x_train.max())) == ([9, 0, 0], 0, 1)


def test_data_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("FASHION_MNIST", str(tmp_path))
    with pytest.raises(SystemExit, match="apt-get install dataset-fashion-mnist"):
        fashion.load_fashion()


@pytest.mark.slow
def test_it_trains_compiles_and_prints(monkeypatch, tmp_path, capsys):
    torch.manual_seed(0)
    labels = torch.arange(60) % 10
    images = labels.reshape(-1, 1, 1, 1) / 10 + torch.rand(60, 1, 28, 28) / 20
    monkeypatch.setattr(fashion, "load_fashion", lambda: (images, labels, images, labels))
    options = ["--epochs", "1", "--images", "50", "--json", str(tmp_path / "fashion.json")]
    (record,) = fashion.main(["--networks", "W1A2/4", *options])
    assert record["same_predictions"] == record["images"] == 60
    assert 0.25 <= record["bits_per_weight"] < 1 and "W1A2/4" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="'W9A1' isn't a network like W2A2 or W1A2/4"):
        fashion.options_of("W9A1")
    assert fashion.options_of("W2A3") == dict(weight_bits=2, act_bits=3, tiles=1)
