"""What the measuring commands share: their options, the file they write, and how they print."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .machine import Machine

OURS = "tvm-bitenc"
PEERS = ("ort int8", "ov int8", "ort fp32", "torch fp32")
INT8_PEERS = ("ort int8", "ov int8")
BEST_INT8 = "best int8"  # The fastest of those.

VARIABLES = ("ONEDNN_MAX_CPU_ISA",)  # Keeps OpenVINO and torch from instructions beyond it.

MAX_WIDTH = 200

Bits = tuple[int, int]


def parser(description: str, default_bits: Sequence[Bits]) -> argparse.ArgumentParser:
    """Command line with the options that all commands have."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument(
        "--bits",
        nargs="+",
        type=bits,
        default=list(default_bits),
        metavar="M,K",
        help="bits of weights and activations, any number of pairs",
    )
    made.add_argument("--threads", type=int, default=1, help="of every contender; default 1")
    made.add_argument("--strategy", default="auto", help="kernel strategy; default auto")
    made.add_argument("--target", default="native", help="a name from targets/ or a TOML file")
    made.add_argument("--json", type=Path, metavar="FILE", help="write all results here")
    return made


def first_line(error: Exception) -> str:
    """Return the kind of an error and the first line of what it says."""
    first, *_ = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {first}"


def bits(text: str) -> Bits:
    """Parse ``M,K``."""
    try:
        weight_bits, act_bits = (int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} isn't a pair like 2,2") from None
    return weight_bits, act_bits


def bits_name(pair: Bits) -> str:
    """Write bits as W2A2."""
    return f"W{pair[0]}A{pair[1]}"


def write_json(path: Path | None, machine: Machine, module: str, **content) -> None:
    """Write a command's results with the machine and the command itself; nothing without path."""
    if path is None:
        return
    variables = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    command = " ".join([*variables, "python -m", module, *sys.argv[1:]])
    results = {"machine": machine.to_dict(), "command": command, **content}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean; nan of nothing."""
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms)) if logarithms else math.nan


def print_machine(machine: Machine, threads: int) -> None:
    """Print what a table's numbers depend on."""
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    print(f"{machine.cpu}, {machine.clock_ghz:.2f} GHz; rates {machine.rates or 'unknown'}")
    print(f"threads: {threads}; {versions}")


def print_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; the first column is text, the others numbers."""
    table = Table(title=title, title_justify="left")
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:  # Into a file, tables are as wide as they need to be.
        console = Console(width=MAX_WIDTH)
    console.print(table)
