"""The explorer of accelerator sizes: what it sweeps, fits and draws."""

# ruff: noqa: E402  What may be missing is asked for first.
from dataclasses import replace

import pytest

for package in ("matplotlib", "rich", "torch"):
    pytest.importorskip(package, reason="pip install 'tvm-bitenc[bench,report,torch]'")

from benchmarks import explore
from tvm_bitenc.accelerator import Accelerator

LUTS = {(dm, dn): 50 * dm * dn + 30 * dm + 20 * dn + 400 for dm in (2, 4, 8) for dn in (2, 4)}


@pytest.fixture
def yosys(monkeypatch):
    """LUTs as if Yosys had run for some sizes; and for which it is asked to run."""
    cached, asked = {(2, 2), (4, 2), (2, 4), (8, 4)}, []

    def synthesized(accelerator, may_run):
        size = accelerator.channels, accelerator.pixels
        if may_run:
            asked.append(size)
        return LUTS[size] if size in cached or may_run else None

    monkeypatch.setattr(explore, "synthesized", synthesized)
    return asked


def test_a_sweep_prints_a_table_and_draws(yosys, tmp_path, capsys):
    picture = tmp_path / "sizes.svg"
    options = ["--dm", "2", "4", "8", "--dn", "2", "4", "--picture", str(picture)]
    assert explore.main(options) == 0
    printed = capsys.readouterr().out
    assert "LUTs fitted: 50.0 DM DN + 30.0 DM + 20.0 DN + 400.0 1" in printed
    rows = [line.split("│")[1:-1] for line in printed.splitlines() if line.startswith("│")]
    found = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    assert found["4x4"][-2:] == ["1,400", "fit"] and found["8x4"][-2:] == ["2,320", "Yosys"]
    cycles = [int(found[name][2].replace(",", "")) for name in ("2x2", "4x4", "8x4")]
    assert cycles == sorted(cycles, reverse=True)
    assert picture.read_text().count("<svg") == 1 and not yosys


def test_yosys_runs_as_often_as_asked_for(yosys):
    points = [
        explore.Point(Accelerator(channels=dm, pixels=dn), 1, 0, 1.0) for dm, dn in sorted(LUTS)
    ]
    found, fit = explore.with_luts(points, runs=1)
    assert yosys == [(4, 4)] and fit == pytest.approx([50, 30, 20, 400])
    by_yosys = [p for p in found if not p.is_fitted]
    assert len(by_yosys) == 5 and all(p.luts for p in found)


def test_without_figures_there_are_no_luts(monkeypatch, capsys):
    monkeypatch.setattr(explore, "synthesized", lambda accelerator, may_run: None)
    assert explore.main(["--dm", "8", "--dn", "8", "--buffers", "1", "0.01"]) == 0
    printed = capsys.readouterr().out
    assert "LUTs need 4 runs of Yosys: --synthesize 4" in printed
    rows = [line.split("│") for line in printed.splitlines() if line.startswith("│")]
    default, tiny = (int(row[6]) for row in rows)
    assert default == 0 and tiny > 0


def test_the_front_leaves_out_what_is_beaten_in_both():
    base = explore.Point(Accelerator(), 100, 0, 1.0, luts=10)
    points = [base, replace(base, cycles=200), replace(base, luts=20, cycles=50),
              replace(base, luts=30, cycles=60)]  # fmt: skip
    assert explore.front(points) == [points[0], points[2]]
