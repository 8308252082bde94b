"""Networks on Fashion-MNIST: a run on a few images, and what networks are called."""

import json
import re

import pytest
import torch

pytest.importorskip("rich", reason="pip install 'tvm-bitenc[bench]'")

from benchmarks import fashion, fashion_tables, report


def test_data_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("FASHION_MNIST", str(tmp_path))
    with pytest.raises(SystemExit, match="apt-get install dataset-fashion-mnist"):
        fashion.main([])


@pytest.fixture
def few_images(monkeypatch):
    """Sixty images, the label of each being its brightness, in place of the data set."""
    torch.manual_seed(0)
    labels = torch.arange(60) % 10
    images = labels.reshape(-1, 1, 1, 1) / 10 + torch.rand(60, 1, 28, 28) / 20
    monkeypatch.setattr(fashion, "load_fashion", lambda: (images, labels, images, labels))


@pytest.mark.slow
def test_it_trains_compiles_and_prints(few_images, tmp_path, capsys):
    path, page = tmp_path / "fashion.json", tmp_path / "page.md"
    options = ["--epochs", "1", "--images", "40", "--validated", "10", "--json", str(path)]
    names = ["W1A2/permute32", "PA4x5", "W1A1+planes", "W1A1+sign"]
    full, *records = fashion.main(["--networks", *names, *options])
    assert [r["network"] for r in records] == names and full["network"] == "float"
    assert all(r["same_predictions"] == r["images"] == 60 for r in records)
    assert all(0.1 <= r["bits_per_weight"] < 32 for r in records)
    assert {r["trained_images"] for r in records} == {40}
    assert records[0]["codewords"] == 3 * 32 and "codewords" not in records[1]
    printed = capsys.readouterr().out
    assert "W1A2/permute32" in printed and "What should hold" in printed
    assert json.loads(path.read_text())["fashion"] == [full, *records]
    page.write_text("# Benchmarks\n")
    report.main([str(path), "--page", str(page)])
    assert (
        "### Fashion-MNIST" in page.read_text()
        and "| W1A1+planes | W1A1+sign |" in page.read_text()
    )


def test_nothing_learns_from_images_to_choose_by(few_images, monkeypatch):
    seen = []

    def train(model, images, targets, **_options):
        seen.append(len(images))
        assert len(targets) == len(images)
        return model.eval()

    monkeypatch.setattr(fashion, "train", train)
    fashion.main(["--networks", "--validated", "25"])
    fashion.main(["--networks", "--validated", "25", "--images", "5"])
    assert seen == [35, 35, 5, 5]


def test_names_of_networks():
    def options(**own):
        return dict(options=own, first="int8")

    assert fashion.options_of("W2A3") == options(weight_bits=2, act_bits=3)
    assert fashion.options_of("W1A1/4") == options(weight_bits=1, act_bits=1, tiles=4)
    coded = options(codewords=64, select="permute", act_bits=2)
    assert fashion.options_of("W1A2/permute64") == coded
    assert fashion.options_of("PA4x5") == options(weight_pieces=4, act_steps=5)
    planes = {**options(weight_bits=1, act_bits=1), "first": "planes"}
    assert fashion.options_of("W1A1+planes") == planes
    for name in fashion.NETWORKS:
        fashion.options_of(name)
    for name in ("W9A1", "W2A2/nearest32", "W1A2/nearest33", "PA3x5", "W1A1+float"):
        with pytest.raises(SystemExit, match=re.escape(f"{name!r} isn't a network like W2A2")):
            fashion.options_of(name)


def test_what_should_hold():
    def record(name, accuracy):
        return {"network": name, "accuracy": accuracy}

    records = [record("float", 0.92), record("W2A2", 0.91), record("PA4x5", 0.914)]
    assert fashion_tables.bar_rows(records) == [
        ("W2A2", "float", "1.00", "1.0", "yes"),
        ("PA4x5", "float", "0.60", "0.5", "no"),
        ("PA4x5", "W2A2", "-0.40", "-0.5", "no"),
    ]


def test_names_are_read_before_anything_is_trained(monkeypatch):
    monkeypatch.setattr(fashion, "load_fashion", lambda: pytest.fail("the data is read"))
    with pytest.raises(SystemExit, match="'W2A9' isn't a network"):
        fashion.main(["--networks", "W2A2", "W2A9"])
