"""The command line, as a user runs it."""

import sys

import pytest

pytest.importorskip("typer", reason="pip install 'tvm-bitenc[cli]'")


@pytest.fixture
def bitenc(monkeypatch, capsys):
    """``bitenc(*arguments)``: exit code, or message, and what was printed."""
    from tvm_bitenc.cli import main

    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["bitenc", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            main()
        return done.value.code, capsys.readouterr()

    return run
