"""``bitenc report``: what a library became, as tables or a page, and two beside each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ..errors import BitencError
from .explain import print_report, text_table
from .libraries import inputs_of, open_library
from .options import AsJson, Shapes

if TYPE_CHECKING:
    from ..compiled import CompiledModel
    from ..program import Benchmark


def report(
    file: Annotated[
        Path | None, typer.Argument(help="A library, or an .onnx or .pt2 file to compile.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="A B", help="Two of them, side by side.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page.")] = None,
    time: Annotated[bool, typer.Option("--time/--no-time", help="Time each layer.")] = True,
    accuracy: Annotated[str, typer.Option(help='Shown on the page, as "71.2 %".')] = "",
    shape: Shapes = None,
    as_json: AsJson = False,
) -> None:
    """Say what each layer became, and how long it takes.

    Example: bitenc report net.so --html net.html
    """
    if compare is not None and file is None:
        _compare(compare, shape, html, time, as_json)
        return
    if file is None or compare is not None:
        raise typer.BadParameter("give a file, or --compare and two")
    lib = open_library(file, shape or ())
    times = _times(lib) if time else None
    found = lib.report()
    if html is not None:
        _write(lib, html, times, accuracy)
    if as_json:
        content = {**found.to_dict(), "quantized_share": found.quantized_share}
        content["seconds"] = times.best if times else None
        print(json.dumps(content, indent=2))
        return
    console = Console()
    print_report(found, console)
    if times:
        console.print(f"{1e6 * times.best:.1f} us per run.", highlight=False)
    if html is not None:
        console.print(f"The page: {html}", highlight=False)


def _times(lib: CompiledModel) -> Benchmark:
    return lib.benchmark(*inputs_of(lib, ()), number=5, repeat=5)


def _write(lib: CompiledModel, path: Path, times: Benchmark | None, accuracy: str) -> None:
    from ..report.roof import measure_roof

    roof = measure_roof(lib.target.threads, lib.target) if times else None
    lib.report().to_html(path, benchmark=times, accuracy=accuracy, roof=roof)


def _compare(
    files: Sequence[Path], shape: list[str] | None, html: Path | None, time: bool, as_json: bool
) -> None:
    from ..report.page import compare as compare_reports
    from ..report.page import write_comparison

    libraries = [open_library(file, shape or ()) for file in files]
    names = [file.name for file in files]
    if names[0] == names[1]:
        names = [str(file) for file in files]
    sides = [
        (name, lib.report(), _times(lib) if time else None) for name, lib in zip(names, libraries)
    ]
    totals, rows = compare_reports(sides[0], sides[1])
    if not rows:
        raise BitencError("report", "neither file has a layer", "Give quantized networks")
    if html is not None:
        write_comparison(sides[0], sides[1], html)
    if as_json:
        content = {"names": names, "totals": totals, "layers": rows}
        print(json.dumps(content, indent=2))
        return
    console = Console()
    console.print(text_table("Totals", ["", *names], list(map(list, totals))))
    console.print(text_table("Layers", ["layer", *names], list(map(list, rows))))
    if html is not None:
        console.print(f"The page: {html}", highlight=False)
