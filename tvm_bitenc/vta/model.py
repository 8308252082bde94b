"""A compiled model whose layers run on an accelerator, as far as it supports them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..compiled import CompiledModel
from ..report import LayerRow, Report
from ..target import Target
from .runtime import recorded
from .verilator import Cycles
from .work import work_of


class AcceleratedModel(CompiledModel):
    """As `CompiledModel`; once it ran on the Verilog, its report holds that run's counters."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._runs: dict[str, Cycles] = {}

    def __call__(self, *inputs):
        """Run; see `CompiledModel`."""
        with recorded() as runs:
            result = super().__call__(*inputs)
        self._runs = runs
        return result

    run = __call__

    def report(self) -> Report:
        """What each layer became, with cycles of the model or, after a run, of the Verilog."""
        peak = self._report.macs_per_cycle
        layers = [_measured(row, self._runs, peak) for row in self._report.layers]
        return replace(self._report, layers=layers)


def model_kind(target: Target) -> type[CompiledModel]:
    """Class of models compiled for a target."""
    return CompiledModel if target.accelerator is None else AcceleratedModel


def _measured(row: LayerRow, runs: Mapping[str, Cycles], peak: int) -> LayerRow:
    if row.work is None or row.name not in runs:
        return row
    return replace(row, work=work_of(runs[row.name], row.work.binary_macs, peak, True))
