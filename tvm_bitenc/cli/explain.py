"""``bitenc explain``: what each layer becomes, why others stay float, and what to change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .models import read_model

if TYPE_CHECKING:
    from ..report import Report


def explain(
    file: Annotated[Path, typer.Argument(help="An .onnx file, or a .pt2 of torch.export.save.")],
    target: Annotated[str, typer.Option(help="A target's name, or a TOML file.")] = "native",
    shape: Annotated[
        list[str] | None, typer.Option(help="Shape of a dynamic input, as x=1,3,224,224.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Say what each layer becomes, what stays float and why, and what to change."""
    from ..explain import explain as explain_module

    report = explain_module(read_model(file, shape or ()), target)
    if as_json:
        print(json.dumps({**report.to_dict(), "quantized_share": report.quantized_share}, indent=2))
    else:
        print_report(report, Console())


def print_report(report: Report, console: Console) -> None:
    """Print a report as tables."""
    headings, rows = report.table()
    console.print(
        text_table(
            f"Layers that run on codes, for {report.target}", headings, rows, report.number_columns
        )
    )
    rows = [[row.name, row.cpu_reason] for row in report.layers if row.cpu_reason]
    if rows:
        console.print(text_table("Layers that run on the CPU", ["layer", "why"], rows))
    if report.float_layers:
        rows = [[x.name, f"{x.macs:,}", x.reason, x.cure] for x in report.float_layers]
        console.print(text_table("Layers that stay float", ["layer", "MACs", "why", "cure"], rows))
    if report.float_ops:
        rows = [[x.op, str(x.count), ", ".join(x.layers)] for x in report.float_ops]
        console.print(text_table("Other float arithmetic", ["op", "count", "layers"], rows))
    for note in report.notes:
        console.print(Text(f"Note: {note}."))
    share = 100 * report.quantized_share
    console.print(f"{share:.1f} % of the multiply-accumulates run on codes.", highlight=False)


def text_table(title: str, headings: list[str], rows: list[list[str]], numbers: int = 0) -> Table:
    """Put cells side by side, the last `numbers` columns to the right."""
    table = Table(title=title, title_justify="left")
    for i, heading in enumerate(headings):
        is_number = i >= len(headings) - numbers
        table.add_column(heading, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # As text: brackets in names are no markup.
    return table
