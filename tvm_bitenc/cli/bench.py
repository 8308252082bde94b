"""``bitenc bench``: time per run and per layer."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .libraries import inputs_of, open_library
from .options import AsJson, Inputs, Runnable, Shapes, Strategy, TargetName, Threads

BAR = 24  # Characters of the longest bar.


def bench(
    file: Runnable,
    inputs: Inputs = None,
    number: Annotated[int, typer.Option(min=1, help="Runs per measurement.")] = 10,
    repeat: Annotated[int, typer.Option(min=1, help="Measurements.")] = 10,
    target: TargetName = "native",
    strategy: Strategy = "auto",
    threads: Threads = None,
    shape: Shapes = None,
    as_json: AsJson = False,
) -> None:
    """Time a library or a model, and each of its layers.

    Example: bitenc bench net.so --repeat 20
    """
    from ..report.page import duration
    from ..report.timing import rows_of_time

    lib = open_library(file, shape or (), target, strategy, threads)
    times = lib.benchmark(*inputs_of(lib, inputs or ()), number=number, repeat=repeat)
    rows = rows_of_time(lib.report(), times)
    if as_json:
        layers = [{"name": n, "strategy": s, "seconds": seconds} for n, s, seconds in rows]
        content = {"seconds": times.seconds.tolist(), "best": times.best, "layers": layers}
        print(json.dumps(content, indent=2))
        return
    longest = max(seconds for *_, seconds in rows)
    table = Table(title="Time per run, with a clock around each call", title_justify="left")
    for heading in ("layer", "strategy", "time", ""):
        table.add_column(heading, justify="right" if heading == "time" else "left")
    for name, kind, seconds in rows:
        bar = "█" * max(1, round(BAR * seconds / longest))
        table.add_row(*map(Text, (name, kind, duration(seconds), bar)))
    console = Console()
    console.print(table)
    console.print(
        f"{duration(times.best)} per run at best, {duration(float(times.seconds.mean()))} on "
        f"average of {repeat} times {number} runs.",
        highlight=False,
    )
