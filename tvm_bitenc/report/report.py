"""`Report`: the data of `ReportData`, and the pages and pictures that are made of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BitencError
from .data import ReportData

if TYPE_CHECKING:
    from ..program import Benchmark
    from .roof import Roof


class Report(ReportData):
    """What each layer became; `str` gives a table. The fields are those of `ReportData`."""

    def roofline(self, path: str | Path) -> Path:
        """Draw what array and memory of the accelerator allow, and the layers, to a picture.

        Raises
        ------
        BitencError
            If no layer is on an accelerator, or matplotlib is missing.
        """
        from .figure import write_figure
        from .roofline import draw_roofline

        if not self.works:
            raise BitencError("roofline", "no layer is on an accelerator", "Build for target='vta'")
        return write_figure(draw_roofline(self), path)

    def to_html(
        self,
        path: str | Path,
        *,
        benchmark: Benchmark | None = None,
        accuracy: str = "",
        roof: Roof | None = None,
    ) -> Path:
        """Write one self-contained page; needs the extra `report`.

        Parameters
        ----------
        path : path of the file
        benchmark : Benchmark, optional
            Of `CompiledModel.benchmark`: adds the time per layer.
        accuracy : str, optional
            Shown as it is, such as ``"99.3 % of 450 digits"``.
        roof : Roof, optional
            Of `report.roof.measure_roof`: adds the roofline.
        """
        from .page import write_report

        return write_report(self, Path(path), benchmark, accuracy, roof)
