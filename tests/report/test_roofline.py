"""The roofline of an accelerator, as a picture and in a page."""

import pytest

from tvm_bitenc.errors import BitencError
from tvm_bitenc.report import LayerRow, Report
from tvm_bitenc.report.html import report_section
from tvm_bitenc.report.roofline import draw_roofline
from tvm_bitenc.vta.work import Work

pytest.importorskip("matplotlib", reason="pip install 'tvm-bitenc[report]'")


def row(name, **work):
    work = Work(**work, load_cycles=1, compute_cycles=1, store_cycles=1) if work else None
    reason = "" if work else "too large"
    return LayerRow(name, "3x3", 2, 2, 2, "vta", 100, 10, 1, cpu_reason=reason, work=work)


REPORT = Report(
    "vta",
    [
        row("busy", cycles=100, utilization=0.5, dram_bytes=400, binary_macs=204_800),
        row("idle", cycles=300, utilization=0.1, dram_bytes=800, binary_macs=122_880),
        row("cpu"),
    ],
    macs_per_cycle=4096,
    bytes_per_cycle=8,
)


def test_totals():
    assert (REPORT.cycles, REPORT.dram_bytes) == (400, 1200)
    assert REPORT.utilization == pytest.approx((204_800 + 122_880) / (400 * 4096))
    content = REPORT.to_dict()
    assert content["cycles"] == 400 and content["layers"][0]["utilization"] == 0.5
    assert "cycles" not in content["layers"][2]
    assert Report.from_dict(content) == REPORT
    lines = str(REPORT).splitlines()
    assert lines[1].endswith("cycles  utilization  DRAM bytes")
    assert lines[3].split()[-4:] == ["100", "50.0", "%", "400"]
    assert lines[6].split()[-4:] == ["400", "20.0", "%", "1,200"]
    assert lines[7] == "cpu: cpu: too large"


def test_points_lie_below_the_limit():
    (axis,) = draw_roofline(REPORT).axes
    limit, *points = axis.lines
    assert list(limit.get_ydata())[1:] == [4096, 4096] and limit.get_xdata()[1] == 512
    found = [(float(p.get_xdata()[0]), float(p.get_ydata()[0])) for p in points]
    assert found == [(512.0, 2048.0), (153.6, pytest.approx(409.6))]


def test_pictures(tmp_path):
    path = REPORT.roofline(tmp_path / "roof.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert report_section(REPORT)["image"].startswith("data:image/svg+xml;base64,")
    assert "image" not in report_section(Report("native"))
    with pytest.raises(BitencError, match="no layer is on an accelerator"):
        Report("native").roofline(tmp_path / "a.png")
    with pytest.raises(BitencError, match="its ending names no picture"):
        REPORT.roofline(tmp_path / "a.text")
