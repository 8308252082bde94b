"""Networks on Fashion-MNIST: a run on a few images, and what networks are called."""

import pytest
import torch

pytest.importorskip("rich", reason="pip install 'tvm-bitenc[bench]'")

from benchmarks import fashion


def test_data_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("FASHION_MNIST", str(tmp_path))
    with pytest.raises(SystemExit, match="apt-get install dataset-fashion-mnist"):
        fashion.main([])


@pytest.mark.slow
def test_it_trains_compiles_and_prints(monkeypatch, tmp_path, capsys):
    torch.manual_seed(0)
    labels = torch.arange(60) % 10
    images = labels.reshape(-1, 1, 1, 1) / 10 + torch.rand(60, 1, 28, 28) / 20
    monkeypatch.setattr(fashion, "load_fashion", lambda: (images, labels, images, labels))
    options = ["--epochs", "1", "--images", "50", "--json", str(tmp_path / "fashion.json")]
    records = fashion.main(["--networks", "W1A2/4", "W1A2/permute32", *options])
    assert [r["same_predictions"] for r in records] == [r["images"] for r in records] == [60, 60]
    assert all(0.1 <= r["bits_per_weight"] < 32 for r in records)
    assert "W1A2/permute32" in capsys.readouterr().out


def test_names_of_networks():
    assert fashion.options_of("W2A3") == dict(weight_bits=2, act_bits=3, tiles=1)
    assert fashion.options_of("W1A1/4") == dict(weight_bits=1, act_bits=1, tiles=4)
    coded = dict(codewords=64, select="permute", act_bits=2)
    assert fashion.options_of("W1A2/permute64") == coded
    for name in fashion.NETWORKS:
        fashion.options_of(name)
    for name in ("W9A1", "W2A2/nearest32", "W1A2/nearest33"):
        with pytest.raises(SystemExit, match=f"'{name}' isn't a network like W2A2"):
            fashion.options_of(name)


def test_names_are_read_before_anything_is_trained(monkeypatch):
    monkeypatch.setattr(fashion, "load_fashion", lambda: pytest.fail("the data is read"))
    with pytest.raises(SystemExit, match="'W2A9' isn't a network"):
        fashion.main(["--networks", "W2A2", "W2A9"])
