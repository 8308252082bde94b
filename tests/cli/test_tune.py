"""``bitenc tune FILE``, ``bitenc tune merge`` and ``bitenc tune verify``, as a user runs them."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tvm_bitenc.kernel.nest.tile import Tile
from tvm_bitenc.nn import QConv2d
from tvm_bitenc.records.file import Record, Trial, read_lines, write_lines
from tvm_bitenc.records.workload import target_key, tvm_version
from tvm_bitenc.target import load_target

pytest.importorskip("xgboost", reason="pip install 'tvm-bitenc[tune]'")

from tvm_bitenc.tuning import verify
from tvm_bitenc.tuning.verify import Verdict

WORKLOAD = (
    "conv2d 1x6x6x64->64 1x1 W2A2 stride=1,1 padding=0,0,0,0 dilation=1,1 groups=1 from=planes"
    " to=A2 offsets=3,0 threads=1"
)


@pytest.fixture
def record():
    keys = WORKLOAD, target_key(load_target("native")), tvm_version()
    return Record(*keys, "xnor", Tile(1, 1, 1, 1), 1.5)


@pytest.mark.slow
def test_a_model_is_tuned(bitenc, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(QConv2d(64, 64, 1, weight_bits=1, act_bits=1), nn.BatchNorm2d(64)).eval()
    torch.export.save(torch.export.export(net, (torch.randn(1, 64, 4, 4),)), tmp_path / "net.pt2")
    code, printed = bitenc(
        "tune", tmp_path / "net.pt2", "--trials", 2, "--threads", 1, "--no-warm",
        "--database", tmp_path / "r.jsonl",
    )  # fmt: skip
    assert code == 0, printed
    assert "GMAC/s" in printed.out and "x default" in printed.out
    assert len([x for x in read_lines(tmp_path / "r.jsonl") if isinstance(x, Trial)]) == 2


def test_files_are_merged(bitenc, record, tmp_path):
    trial = Trial(record.workload, record.target, record.tvm, "lut", Tile(1, 1), 1.0, 2.0)
    write_lines([record, trial], tmp_path / "a.jsonl")
    write_lines([replace(record, target="other cpu")], tmp_path / "b.jsonl")
    files = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    code, printed = bitenc("tune", "merge", *files, "-o", tmp_path / "c.jsonl")
    assert code == 0 and "2 records and 1 trials" in printed.out
    assert len(read_lines(tmp_path / "c.jsonl")) == 3
    bitenc("tune", "merge", *files, "-o", tmp_path / "d.jsonl", "--records-only")
    assert read_lines(tmp_path / "d.jsonl") == [record, replace(record, target="other cpu")]


@pytest.mark.slow
def test_a_record_that_doesnt_win_is_dropped(bitenc, record, tmp_path, monkeypatch):
    """A tile of one pixel and one vector is slow; another CPU's record stays as it is."""
    path, other = tmp_path / "r.jsonl", replace(record, target="other cpu")
    write_lines([record, other], path)
    code, printed = bitenc("tune", "verify", path)
    assert code == 0 and "0 of 1 records of this target hold" in printed.out
    assert read_lines(path) == [other]
    # Once is enough to build and to measure it.
    monkeypatch.setattr(verify, "BuilderPool", lambda: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(verify, "_verdict", lambda record, *_: Verdict(record, 0.5, "is slow"))
    write_lines([record, other], path)
    code, printed = bitenc("tune", "verify", path, "--keep")
    assert code == 0 and "dropped, it is slow" in printed.out
    assert read_lines(path) == [record, other]


def test_a_corrupt_file_is_one_line(bitenc, tmp_path):
    (tmp_path / "r.jsonl").write_text("nonsense\n")
    for command in (["verify"], ["merge", "-o", tmp_path / "o.jsonl"]):
        message, _ = bitenc("tune", *command, tmp_path / "r.jsonl")
        assert "line 1" in message and "Delete that line" in message


def test_help_names_all(bitenc):
    code, printed = bitenc("tune", "--help")
    assert code == 0
    assert all(word in printed.out for word in ("merge", "verify", "bitenc tune FILE"))
