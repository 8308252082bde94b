"""The roofline of an accelerator: what its array and its memory allow, and where layers are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .data import ReportData
from .figure import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_roofline(report: ReportData) -> Figure:
    """Return a figure of binary multiply-accumulates per cycle over those per byte of memory.

    Parameters
    ----------
    report : ReportData
        With layers on an accelerator.
    """
    figure, axis = new_figure(7, 4.5)
    peak, bandwidth = report.macs_per_cycle, report.bytes_per_cycle
    points = [
        (row.name, row.work.binary_macs / row.work.dram_bytes, row.work.utilization * peak)
        for row in report.layers
        if row.work is not None and row.work.binary_macs
    ]
    ridge = peak / bandwidth
    intensities = [ridge, *(x for _, x, _ in points)]
    low, high = min(intensities) / 2, max(intensities) * 2
    axis.plot([low, ridge, high], [low * bandwidth, peak, peak], color="black", label="limit")
    for name, x, y in points:
        axis.plot(x, y, "o")
        axis.annotate(name, (x, y), xytext=(4, -9), textcoords="offset points", fontsize=7)
    axis.set(xscale="log", yscale="log", xlabel="binary MACs per byte of memory traffic",
             ylabel="binary MACs per cycle", title=f"Roofline of {report.target}")  # fmt: skip
    return figure
