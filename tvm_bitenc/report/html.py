"""Self-contained pages, from the templates beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import BitencError
from ..files import written_whole
from ..printable import printable
from .data import ReportData, layer_line, ops_line
from .figure import data_url
from .roofline import draw_roofline


def write_page(path: Path, title: str, sections: list[dict]) -> Path:
    """Write a page of sections.

    Parameters
    ----------
    path : Path
    title : str
    sections : list of dict
        Each with ``heading`` and any of ``paragraphs``, ``image`` (a data URL), ``headings`` and
        ``rows``. All text is escaped.
    """
    return write_template(path, "page.html.j2", {"title": title, "sections": sections})


def write_template(path: Path, name: str, content: dict) -> Path:
    """Fill a template of templates/ and write it; all text is escaped.

    Raises
    ------
    BitencError
        If jinja2 isn't installed.
    """
    try:
        import jinja2
    except ImportError:
        raise BitencError(
            "report", "jinja2 isn't installed", "pip install 'tvm-bitenc[report]'"
        ) from None
    loader = jinja2.PackageLoader("tvm_bitenc.report")
    environment = jinja2.Environment(loader=loader, autoescape=True, finalize=_shown)
    template = environment.get_template(name)
    with written_whole(path) as temporary:
        temporary.write_text(template.render(content), encoding="utf-8")
    return path


def _shown(value: Any) -> Any:
    """Text without control characters; what a macro made is markup, its texts were shown so."""
    is_text = isinstance(value, str) and not hasattr(value, "__html__")
    return printable(value, "\n\t") if is_text else value


def report_section(report: ReportData) -> dict:
    """Return the section of a page that shows a report."""
    headings, rows = report.table()
    notes = [
        f"On the CPU: {row.name}: {row.cpu_reason}." for row in report.layers if row.cpu_reason
    ]
    notes += [f"Stayed float: {layer_line(layer)}." for layer in report.float_layers]
    notes += [f"Float arithmetic: {ops_line(ops)}." for ops in report.float_ops]
    notes += [f"Note: {note}." for note in report.notes]
    picture = {"image": data_url(draw_roofline(report))} if report.works else {}
    return {
        "heading": "Layers",
        **picture,
        "paragraphs": [f"Target {report.target}. Sizes are bytes of weights.", *notes],
        "headings": headings,
        "rows": rows,
    }
