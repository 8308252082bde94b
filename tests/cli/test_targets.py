"""``bitenc targets``: what ships, and files of one's own."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tvm_bitenc.target import load_target, target_names

pytest.importorskip("typer", reason="pip install 'tvm-bitenc[cli]'")

README = Path(__file__).parents[2] / "targets" / "README.md"


def as_json(bitenc, *arguments):
    code, printed = bitenc("targets", *arguments, "--json")
    assert not code
    return {row["name"]: row for row in json.loads(printed.out)}


def test_all_that_ship_are_listed(bitenc):
    rows = as_json(bitenc)
    assert sorted(rows) == target_names()
    for name, row in rows.items():
        target = load_target(name)
        assert row["rules"] == list(target.rules) and row["triple"] == target.triple
        expected = set() if target.accelerator else {"xnor", "lut", "int8"}
        assert row["description"] and set(row["strategies"]) == expected
        assert set(row["auto"].values()) <= set(row["strategies"])
    assert rows["native"]["runs_here"] == "natively" and rows["vta"]["runs_here"] == "simulated"
    assert rows["cortex-a76"]["rules"] == ["dotprod", "neon", "generic"]


def test_table(bitenc):
    code, printed = bitenc("targets")
    assert not code and not printed.err
    assert all(name in printed.out for name in target_names())


def test_what_runs_foreign_programs(bitenc, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert (
        as_json(bitenc, "cortex-a72")["cortex-a72"]["runs_here"] == "qemu-aarch64 -cpu cortex-a72"
    )
    monkeypatch.setattr(shutil, "which", lambda name: None)
    runs = as_json(bitenc, "cortex-a72")["cortex-a72"]["runs_here"]
    assert runs == "not yet: qemu-aarch64 isn't installed"


def test_the_file_of_the_readme(bitenc, tmp_path):
    """A user adds a target by writing a file: the one that the README shows."""
    path = tmp_path / "cortex-a75.toml"
    path.write_text(re.search(r"```toml\n(.*?)```", README.read_text(), re.DOTALL)[1])
    (row,) = as_json(bitenc, path).values()
    assert row["name"] == "cortex-a75" and row["cpu"] == "cortex-a75"
    assert row["auto"]["W1A1"] == "xnor" and row["auto"]["W8A8"] == "int8"
    assert row["emulator"] == "qemu-aarch64 -cpu max"
    assert load_target(path).core.issue == 3


def test_bad_files_are_refused(bitenc, tmp_path):
    good = '[tvm]\nmtriple = "aarch64-linux-gnu"\nmcpu = "cortex-a55"\n'
    for text, message in [
        (good + '[schedule]\nrules = ["neno"]\n', "no schedule rule set 'neno'"),
        (good + "[core]\nisue = 1\n", "at core: object contains unknown field `isue`"),
        (good + "[core]\nissue = 0\n", "at core.issue: expected `float` > 0"),
        (good + '[core]\nvector = "two"\n', "at core.vector: expected `float`, got `str`"),
        ("emulator = 5\n" + good, "at emulator: expected `str`, got `int`"),
    ]:
        path = tmp_path / "board.toml"
        path.write_text(text)
        code, printed = bitenc("targets", path)
        assert message in code and "\n" not in code and not printed.out
    assert "there is no such name" in bitenc("targets", "z80")[0]
