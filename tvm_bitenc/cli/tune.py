"""``bitenc tune``: find faster kernels for a model; ``merge`` and ``verify`` their records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from ..errors import BitencError
from .models import read_model

COMMAND = "model"  # What runs where no other subcommand is named.


class _ModelByDefault(TyperGroup):
    """Takes ``bitenc tune net.onnx`` for ``bitenc tune model net.onnx``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name the subcommand that was left out; newer typers bring their own click."""
        if args and args[0] not in (*self.commands, "--help"):
            args = [COMMAND, *args]
        return super().parse_args(ctx, args)


tune_app = typer.Typer(
    cls=_ModelByDefault,
    no_args_is_help=True,
    help="Find faster kernels for a model: bitenc tune FILE [OPTIONS]. See also merge and verify.",
)


@tune_app.command(COMMAND)
def tune_model(
    file: Annotated[Path, typer.Argument(help="An .onnx file, or a .pt2 of torch.export.save.")],
    target: Annotated[str, typer.Option(help="A target's name, or a TOML file.")] = "native",
    trials: Annotated[int, typer.Option(help="Candidates per kind of layer.")] = 64,
    database: Annotated[
        Path | None, typer.Option(help="Where records go; tuned-CPU.jsonl by default.")
    ] = None,
    runner: Annotated[
        str | None, typer.Option(help="Devices behind a tracker, as rpc://host:port/key.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Of the kernels.")] = None,
    shape: Annotated[
        list[str] | None, typer.Option(help="Shape of a dynamic input, as x=1,3,224,224.")
    ] = None,
    warm: Annotated[bool, typer.Option(help="Learn from the records that ship.")] = True,
) -> None:
    """Find faster kernels for the layers of a model. Ctrl-C ends it; what was measured is kept."""
    from ..tuning.api import tune

    mod = read_model(file, shape or ())
    results = tune(mod, target, trials, database, runner, threads=threads, warm_start=warm)
    if not results:
        raise BitencError(str(file), "has no layer that can be tuned", "See bitenc explain")
    table = Table(title="Tuned layers", title_justify="left")
    for heading in ("layer", "count", "trials", "strategy", "GMAC/s", "% of limit", "x default"):
        table.add_column(heading, justify="left" if heading in ("layer", "strategy") else "right")
    for r in results:
        share = f"{100 * r.share_of_limit:.0f}" if r.share_of_limit else "-"
        cells = [r.name, str(r.count), str(r.trials), r.strategy, f"{r.gmacs:.1f}", share]
        table.add_row(*map(Text, [*cells, f"{r.speedup:.3f}"]))
    Console().print(table)


@tune_app.command()
def merge(
    files: Annotated[list[Path], typer.Argument(help="Files of records, or folders with one.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    records_only: Annotated[bool, typer.Option(help="Leave out the trials.")] = False,
) -> None:
    """Put records of several files into one; of equal ones the last counts."""
    from ..records.file import Record, merged, read_lines, write_lines

    lines = merged(line for file in files for line in read_lines(file))
    lines = [line for line in lines if isinstance(line, Record) or not records_only]
    write_lines(lines, output)
    records = sum(isinstance(line, Record) for line in lines)
    print(f"{output}: {records} records and {len(lines) - records} trials")


@tune_app.command()
def verify(
    database: Annotated[Path, typer.Argument(help="A file of records, or a folder with one.")],
    target: Annotated[str, typer.Option(help="A target's name, or a TOML file.")] = "native",
    runner: Annotated[
        str | None, typer.Option(help="Devices behind a tracker, as rpc://host:port/key.")
    ] = None,
    keep: Annotated[bool, typer.Option(help="Change nothing in the file.")] = False,
) -> None:
    """Compare records with the default schedules again, and drop those that don't win."""
    from ..tuning.verify import Verdict
    from ..tuning.verify import verify as verify_records

    console = Console()

    def said(verdict: Verdict) -> None:
        speedup = "  -  " if verdict.speedup is None else f"{verdict.speedup:5.3f}"
        word = f"dropped, it {verdict.reason}" if verdict.reason else "holds"
        console.print(Text(f"{speedup} x  {verdict.record.workload}: {word}"))

    verdicts = verify_records(database, target, runner, keep=keep, said=said)
    held = sum(not verdict.reason for verdict in verdicts)
    console.print(f"{held} of {len(verdicts)} records of this target hold.", highlight=False)
