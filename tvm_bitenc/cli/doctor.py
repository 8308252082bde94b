"""``bitenc doctor``: what is missing here and on a device, and how fast this CPU's core is."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


def doctor(
    host: Annotated[str | None, typer.Option(help="Look at the device there as well.")] = None,
    port: Annotated[int, typer.Option(help="Port of its server.")] = 9090,
    key: Annotated[str, typer.Option(help="Kind of device.")] = "",
    tracker: Annotated[
        bool, typer.Option("--tracker", help="A tracker listens there, not a server.")
    ] = False,
    rates: Annotated[
        bool,
        typer.Option("--rates", help="Measure this CPU instead: [core] of a target file."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Say what is missing here, and on a device; exits with 1 if nothing can work without it."""
    if rates:
        if host is not None:
            raise typer.BadParameter("--rates measures this machine; run it on the other one")
        _print_rates(as_json)
        return
    from ..deploy.connection import Connection
    from ..deploy.doctor import doctor as examine

    checks = examine(None if host is None else Connection(host, port, key, tracker, timeout=30))
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        _print(checks, Console())
    if any(check.is_needed and not check.is_ok for check in checks):
        raise typer.Exit(1)


def _print_rates(as_json: bool) -> None:
    """Print what is measured, and on the way, on the other stream, what is being measured."""
    from ..rates import measure_rates, toml_of

    with Console(stderr=True).status("") as status:
        found = measure_rates(say=status.update)
    print(json.dumps(found) if as_json else toml_of(found))


def _print(checks: list, console: Console) -> None:
    for side, title in ("here", "This machine"), ("device", "The device"):
        rows = [check for check in checks if check.side == side]
        if not rows:
            continue
        table = Table(title=title, title_justify="left")
        for heading in ("", "what", "found", "used for", "to mend it"):
            table.add_column(heading, overflow="fold")
        for check in rows:
            mark = "ok" if check.is_ok else "MISSING" if check.is_needed else "missing"
            cells = mark, check.name, check.found, check.used_for, check.cure
            table.add_row(*map(Text, cells))
        console.print(table)
