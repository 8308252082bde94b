"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import __version__
from ..data import data_folder
from ..strategy import ALL_STRATEGIES, AUTO


def _targets(incomplete: str) -> list[str]:
    names = ["native", *(path.stem for path in data_folder("targets").glob("*.toml"))]
    return sorted(name for name in names if name.startswith(incomplete))


def _strategies(incomplete: str) -> list[str]:
    return [name for name in (AUTO, *ALL_STRATEGIES) if name.startswith(incomplete)]


Runnable = Annotated[Path, typer.Argument(help="A library, or an .onnx or .pt2 file to compile.")]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", help="Shape of a dynamic input, as x=1,3,224,224."),
]
TargetName = Annotated[
    str, typer.Option("--target", help="A target's name, or a TOML file.", autocompletion=_targets)
]
Strategy = Annotated[
    str,
    typer.Option("--strategy", help=", ".join((AUTO, *ALL_STRATEGIES)), autocompletion=_strategies),
]
Threads = Annotated[int | None, typer.Option("--threads", help="1: no parallel loops.")]
Inputs = Annotated[
    list[Path] | None, typer.Option("--input", help="An .npy file; random numbers without.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"bitenc {__version__}")
        raise typer.Exit


def of_all(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Compile networks with 1- to 8-bit weights and activations."""
