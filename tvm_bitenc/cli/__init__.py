"""The command `bitenc`. Each subcommand is a function in a file of its own.

Their files import what a command needs, TVM above all, in its function: the help takes no time.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; errors are one line, and exit with 1 (wrong arguments with 2)."""
    try:
        import rich  # noqa: F401
        import typer
    except ImportError as error:
        sys.exit(f"bitenc: {error.name} isn't installed. pip install 'tvm-bitenc[cli]'.")
    from ..errors import BitencError
    from . import options
    from .bench import bench
    from .compile import compile_command
    from .deploy import deploy
    from .doctor import doctor
    from .explain import explain
    from .report import report
    from .run import run
    from .serve import serve
    from .sim import sim
    from .targets import targets
    from .tune import tune_app

    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(options.of_all)
    app.command("compile")(compile_command)
    for command in (run, bench, report, explain, targets, deploy, serve, doctor, sim):
        app.command()(command)
    app.add_typer(tune_app, name="tune")
    try:
        app()
    except BitencError as error:
        sys.exit(f"bitenc: {error}")
