"""``bitenc doctor``: what is missing here and on a device, and the command that mends it."""

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
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Say what is missing here, and on a device; exits with 1 if nothing can work without it."""
    from ..deploy.connection import Connection
    from ..deploy.doctor import doctor as examine

    checks = examine(None if host is None else Connection(host, port, key, tracker, timeout=30))
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        _print(checks, Console())
    if any(check.is_needed and not check.is_ok for check in checks):
        raise typer.Exit(1)


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
