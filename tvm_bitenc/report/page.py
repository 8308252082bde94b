"""The report as one self-contained page, and two reports beside each other.

What is drawn is computed here; the templates beside this file draw it, as HTML and inline SVG.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .data import LayerRow, ReportData, layer_line, ops_line
from .figure import data_url
from .html import write_template
from .roofline import draw_roofline
from .timing import layer_seconds, rows_of_time

if TYPE_CHECKING:
    from ..program import Benchmark
    from .roof import Roof

    Side = tuple[str, ReportData, Benchmark | None]  # Name, layers and times.
Row = tuple[str, str, str]  # What it is of, and texts of both sides.

ROW_HEIGHT, ARC_STEP = 46, 14  # Of the graph, in units of its drawing.
CHART = (340, 240)  # Width and height of the roofline.


def write_report(
    report: ReportData,
    path: Path,
    benchmark: Benchmark | None = None,
    accuracy: str = "",
    roof: Roof | None = None,
) -> Path:
    """Write a report as a page; see `ReportData.to_html`."""
    headings, rows = report.table()
    content = {
        "title": "What each layer became",
        "report": report,
        "facts": facts(report, benchmark, accuracy),
        "graph": graph(report),
        "bars": bars(rows_of_time(report, benchmark)) if benchmark else [],
        "roofline": roofline(report, benchmark, roof) if benchmark and roof else None,
        "sizes": sizes(report),
        "accelerator": data_url(draw_roofline(report)) if report.works else None,
        "cpu_lines": [f"{row.name}: {row.cpu_reason}" for row in report.layers if row.cpu_reason],
        "float_lines": [layer_line(layer) for layer in report.float_layers],
        "op_lines": [ops_line(ops) for ops in report.float_ops],
        "headings": headings,
        "rows": rows,
    }
    return write_template(path, "report.html.j2", content)


def facts(report: ReportData, benchmark: Benchmark | None, accuracy: str) -> list[tuple[str, str]]:
    """Numbers at the head of the page, each with what it is."""
    found = [("layers on codes", str(len(report.layers)))]
    found.append(("of the multiply-accumulates", f"{100 * report.quantized_share:.1f} %"))
    if report.stored_bytes:
        found.append(("smaller weights", f"{report.float_bytes / report.stored_bytes:.1f} x"))
    if benchmark:
        found.append(("per run", duration(benchmark.best)))
    if accuracy:
        found.append(("accuracy", accuracy))
    return found


def duration(seconds: float) -> str:
    """Seconds in a unit that suits them."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.2f} {unit}"
    return f"{1e6 * seconds:.1f} us"


def graph(report: ReportData) -> dict:
    """Layers below each other, and an arc to the left for each edge that skips one.

    Returns
    -------
    dict
        ``nodes``, ``lines`` and ``arcs`` with positions, and ``left``, ``width``, ``height``.
    """
    nodes = [("input", "", "input"), *map(_node, report.layers)]
    reach = max((reader - source for source, reader in report.edges), default=1)
    left = ARC_STEP * min(reach, 6) + 12
    centres = [ROW_HEIGHT * (i + 0.5) for i in range(len(nodes))]
    arcs, lines = [], []
    for source, reader in report.edges:
        top, bottom = centres[source + 1], centres[reader + 1]
        if reader - source == 1:
            lines.append((top, bottom))
        else:
            arcs.append((top, bottom, left - ARC_STEP * min(reader - source, 6)))
    return {
        "nodes": [(y, *node) for y, node in zip(centres, nodes)],
        "lines": lines,
        "arcs": arcs,
        "left": left,
        "width": 360 + left,
        "height": ROW_HEIGHT * len(nodes),
    }


def _node(row: LayerRow) -> tuple[str, str, str]:
    out = "sums" if row.out_bits == 32 else f"A{row.out_bits}"
    detail = f"W{row.weight_bits}A{row.act_bits} to {out}, {row.strategy or 'pool'}"
    return row.name, f"{detail} · {row.shape}", row.strategy or "other"


def bars(rows: Iterable[tuple[str, str, float]]) -> list[dict]:
    """Bars of seconds: their share of the longest in percent, and what to write beside them."""
    rows = list(rows)
    longest = max((seconds for *_, seconds in rows), default=0.0) or 1.0
    total = sum(seconds for *_, seconds in rows) or 1.0
    return [
        {
            "name": name,
            "kind": strategy or "other",
            "width": 100 * seconds / longest,
            "text": f"{duration(seconds)}, {100 * seconds / total:.0f} %",
        }
        for name, strategy, seconds in rows
    ]


def sizes(report: ReportData) -> list[dict]:
    """Bars of the weights' bytes, before and after."""
    largest = max(report.float_bytes, report.stored_bytes, 1)
    pairs = (("float32", report.float_bytes), ("as stored", report.stored_bytes))
    return [
        {"name": name, "width": 100 * size / largest, "text": f"{size:,} bytes", "kind": "other"}
        for name, size in pairs
    ]


def roofline(report: ReportData, benchmark: Benchmark, roof: Roof) -> dict | None:
    """Points of the layers and the roofs above them, in units of the drawing.

    Returns
    -------
    dict or None
        None where the layers' times can't be told apart.
    """
    seconds = layer_seconds(report, benchmark)
    if seconds is None:
        return None
    measured = [
        (row, row.macs / row.moved_bytes, row.macs / each / 1e9)
        for row, each in zip(report.layers, seconds)
        if row.macs and row.moved_bytes and each > 0
    ]
    kinds = dict.fromkeys(
        (row.strategy, row.weight_bits, row.act_bits)
        for row, *_ in measured
        if not row.branches  # The roofs are those of all pairs of planes.
    )
    tops = {kind: top for kind in kinds if (top := roof.gmacs(*kind))}
    if not measured or not tops:
        return None
    x = _Axis([intensity for _, intensity, _ in measured], CHART[0])
    y = _Axis([*tops.values(), *(speed for *_, speed in measured)], CHART[1], is_down=True)
    roofs = [
        {
            "name": f"{strategy} W{weight_bits}A{act_bits}, {top:,.0f} GMAC/s",
            "kind": strategy,
            "points": " ".join(
                f"{x(i):.1f},{y(min(top, i * roof.bandwidth)):.1f}" for i in x.ticks(40)
            ),
        }
        for (strategy, weight_bits, act_bits), top in tops.items()
    ]
    points = [
        {"x": x(intensity), "y": y(speed), "kind": row.strategy, "number": number,
         "name": row.name, "text": f"{speed:,.1f} GMAC/s at {intensity:,.0f} MAC/byte"}
        for number, (row, intensity, speed) in enumerate(measured, 1)
    ]  # fmt: skip
    return {
        "width": CHART[0],
        "height": CHART[1],
        "roofs": roofs,
        "points": points,
        "x_ticks": [(x(tick), f"{tick:g}") for tick in x.decades()],
        "y_ticks": [(y(tick), f"{tick:g}") for tick in y.decades()],
        "note": f"{roof.text}; cache {roof.bandwidth:.0f} GB/s; clock and cache measured here",
    }


class _Axis:
    """Logarithmic positions of positive numbers along a length, whole decades around them."""

    def __init__(self, values: Iterable[float], length: float, is_down: bool = False):
        exponents = [math.log10(value) for value in values]
        self.low, self.high = math.floor(min(exponents)), math.ceil(max(exponents))
        self.high = max(self.high, self.low + 1)
        self.length, self.is_down = length, is_down

    def __call__(self, value: float) -> float:
        exponent = max(math.log10(value), self.low)
        share = (exponent - self.low) / (self.high - self.low)
        return self.length * (1 - share if self.is_down else share)

    def decades(self) -> list[float]:
        """Whole powers of ten on it."""
        return [10.0**exponent for exponent in range(self.low, self.high + 1)]

    def ticks(self, count: int) -> list[float]:
        """Numbers at equal distances."""
        step = (self.high - self.low) / count
        return [10.0 ** (self.low + step * i) for i in range(count + 1)]


def write_comparison(
    first: Side,
    second: Side,
    path: Path,
) -> Path:
    """Write a page of two reports, each with its name and times where they were measured."""
    totals, rows = compare(first, second)
    content = {
        "title": f"{first[0]} and {second[0]}",
        "names": (first[0], second[0]),
        "totals": totals,
        "rows": rows,
    }
    return write_template(path, "compare.html.j2", content)


def compare(first: Side, second: Side) -> tuple[list[Row], list[Row]]:
    """Totals of two reports, and their layers matched by name: texts of both, empty where absent.

    Parameters
    ----------
    first, second : (str, ReportData, Benchmark or None)
    """
    texts = {
        "target": lambda report, _times: report.target,
        "layers on codes": lambda report, _times: str(len(report.layers)),
        "of the multiply-accumulates": lambda report, _: f"{100 * report.quantized_share:.1f} %",
        "bytes of weights": lambda report, _times: f"{report.stored_bytes:,}",
        "layers in float": lambda report, _times: str(len(report.float_layers)),
        "per run": lambda _report, times: duration(times.best) if times else "",
    }
    if not (first[2] or second[2]):
        del texts["per run"]
    totals = [(what, text(*first[1:]), text(*second[1:])) for what, text in texts.items()]
    one, other = _by_name(*first[1:]), _by_name(*second[1:])
    names = dict.fromkeys([*one, *other])
    return totals, [(name, one.get(name, ""), other.get(name, "")) for name in names]


def _by_name(report: ReportData, benchmark: Benchmark | None) -> dict[str, str]:
    seconds = layer_seconds(report, benchmark) if benchmark else None
    texts: dict[str, str] = {}
    for i, row in enumerate(report.layers):
        text = f"W{row.weight_bits}A{row.act_bits} {row.strategy}, {row.stored_bytes:,} bytes"
        name = row.name if row.name not in texts else f"{row.name} ({i})"
        texts[name] = text + (f", {duration(seconds[i])}" if seconds else "")
    return texts | {layer.name: "float" for layer in report.float_layers}
