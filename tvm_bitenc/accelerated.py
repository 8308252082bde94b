"""`AcceleratedModel`: a model whose layers run on an accelerator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from .compiled import CompiledModel
from .printable import printable
from .program import CompiledProgram
from .report.data import LayerRow
from .report.report import Report
from .runtime.network import Runner
from .vta.work import Cycles, work_of


class AcceleratedModel(CompiledModel):
    """As `CompiledModel`; once it ran on the Verilog, its report holds that run's counters."""

    def __init__(self, program: CompiledProgram, make_runner: Callable[[], Runner]):
        from .vta.runtime import recorded

        super().__init__(program, make_runner)
        self._recorded = recorded
        self._runs: dict[str, Cycles] = {}

    def __call__(self, *inputs):
        """Run; see `CompiledModel`."""
        with self._recorded() as runs:
            result = super().__call__(*inputs)
        self._runs = {printable(layer): cycles for layer, cycles in runs.items()}
        return result

    run = __call__

    def report(self) -> Report:
        """What each layer became, with cycles of the model or, after a run, of the Verilog."""
        report = super().report()
        layers = [_measured(row, self._runs, report.macs_per_cycle) for row in report.layers]
        return replace(report, layers=layers)


def _measured(row: LayerRow, runs: Mapping[str, Cycles], peak: int) -> LayerRow:
    if row.work is None or row.name not in runs:
        return row
    return replace(row, work=work_of(runs[row.name], row.work.binary_macs, peak, True))
