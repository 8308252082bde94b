"""The time of each layer, from the calls of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .data import ReportData

if TYPE_CHECKING:
    from ..program import Benchmark

LAYER_KERNELS = ("packed_conv2d", "branch_matmul")
OTHER = "everything between layers"


def layer_seconds(report: ReportData, benchmark: Benchmark) -> list[float] | None:
    """Seconds of each layer of a report, in its order; None where they can't be told apart.

    Layers run in the order of the report, each by one call of a kernel of its own op.
    """
    calls = [call for call in benchmark.calls if any(op in call[0] for op in LAYER_KERNELS)]
    if len(calls) != len(report.layers):
        return None
    pairs = zip(report.layers, calls)
    fits = all(not row.strategy or row.strategy in name for row, (name, _) in pairs)
    return [seconds for _, seconds in calls] if fits else None


def rows_of_time(report: ReportData, benchmark: Benchmark) -> list[tuple[str, str, float]]:
    """Name, strategy and seconds of each layer, then of all between them; or of each kernel."""
    seconds = layer_seconds(report, benchmark)
    if seconds is None:
        return [(name, "", each) for name, each in benchmark.layers.items()]
    rows = [(row.name, row.strategy, each) for row, each in zip(report.layers, seconds)]
    rest = sum(benchmark.layers.values()) - sum(seconds)
    return [*rows, (OTHER, "", max(rest, 0.0))]
