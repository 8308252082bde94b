"""The report as one self-contained page."""

from __future__ import annotations

from pathlib import Path

from ..deploy.library import written_whole
from ..errors import BitencError
from .figure import data_url
from .report import Report, layer_line, ops_line
from .roofline import draw_roofline

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 0 auto; padding: 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid; }
tbody tr:nth-child(even) { background: color-mix(in srgb, currentcolor 7%, transparent); }
img { max-width: 100%; height: auto; background: white; }
"""

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{{ style }}</style>
<h1>{{ title }}</h1>
{% for section in sections %}
<h2>{{ section.heading }}</h2>
{% for paragraph in section.paragraphs %}<p>{{ paragraph }}</p>
{% endfor %}
{% if section.image %}<img alt="{{ section.heading }}" src="{{ section.image }}">{% endif %}
{% if section.headings %}<div class="wide"><table>
<thead><tr>{% for cell in section.headings %}<th>{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in section.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table></div>{% endif %}
{% endfor %}
</html>
"""


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
    try:
        import jinja2
    except ImportError:
        raise BitencError(
            "report", "jinja2 isn't installed", "pip install 'tvm-bitenc[report]'"
        ) from None
    template = jinja2.Environment(autoescape=True).from_string(PAGE)
    with written_whole(path) as temporary:
        temporary.write_text(
            template.render(title=title, style=STYLE, sections=sections), encoding="utf-8"
        )
    return path


def report_section(report: Report) -> dict:
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


def write_report(report: Report, path: Path) -> Path:
    """Write a report alone as a page."""
    return write_page(path, "What each layer became", [report_section(report)])
