"""``bitenc compile``: from a model to a library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..errors import BitencError
from .explain import print_report
from .libraries import open_library
from .models import READERS
from .options import AsJson, Shapes, Strategy, TargetName, Threads


def compile_command(
    model: Annotated[Path, typer.Argument(help="An .onnx file, or a .pt2 of torch.export.save.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: the model's name, .so.")
    ] = None,
    target: TargetName = "native",
    strategy: Strategy = "auto",
    threads: Threads = None,
    shape: Shapes = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as a page, too.")] = None,
    dump: Annotated[
        Path | None, typer.Option(help="Write the module after every pass into this folder.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compile a model to a shared library, and say what each layer became.

    Example: bitenc compile net.onnx -o net.so --target x86-64-v3
    """
    if model.suffix.lower() not in READERS:
        raise BitencError(str(model), "is no model", f"Give one of {', '.join(READERS)}")
    lib = open_library(model, shape or (), target, strategy, threads, dump)
    path = lib.export_library(output or model.with_suffix(".so"))
    report = lib.report()
    if html is not None:
        report.to_html(html)
    if as_json:
        content = {"library": str(path), "bytes": path.stat().st_size, "report": report.to_dict()}
        print(json.dumps(content, indent=2))
        return
    console = Console()
    print_report(report, console)
    console.print(f"Wrote {path}, {path.stat().st_size:,} bytes.", highlight=False)
