"""Servers on loopback, each of which is gone when its test is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import tvm_bitenc as be
from tvm_bitenc.deploy import sealed
from tvm_bitenc.deploy.serve import Server

ROOT = Path(be.__file__).parents[1]
_PROGRAM = """
import resource, sys
if {most_bytes}:
    resource.setrlimit(resource.RLIMIT_FSIZE, ({most_bytes}, {most_bytes}))
sys.argv = ["bitenc", "serve", "--port", "0", *{options}]
from tvm_bitenc.cli import main
main()
"""


@pytest.fixture(scope="session")
def server():
    """A `Server` on loopback for all tests that leave it alive."""
    with Server(port=0) as server:
        yield server


class Program:
    """``bitenc serve`` as a program of its own; its output goes to a file."""

    def __init__(self, folder: Path, most_bytes: int = 0, options: list[str] = ()):
        self.folder, self.log = folder, folder / "serve.log"
        script = _PROGRAM.format(most_bytes=most_bytes, options=list(options))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", script], stdout=log, stderr=log, env=environment
            )
        self.processes = [psutil.Process(self.process.pid)]

    def wait_for_port(self) -> int:
        until(lambda: "listening at" in self.log.read_text() or self.process.poll() is not None)
        return int(self.log.read_text().split("listening at ")[1].split(";")[0].split(":")[1])

    def sessions(self) -> list[psutil.Process]:
        """Processes that serve a client each: forks of the one that listens."""
        found = self.processes[0].children(recursive=True)
        self.processes = [self.processes[0], *found]
        return [x for listening in self.processes[0].children() for x in listening.children()]

    def uploaded(self) -> list[Path]:
        """Libraries on the server's disk."""
        return list(self.folder.rglob("bitenc-*.so"))

    def kill(self) -> None:
        for process in [*self.processes[0].children(recursive=True), self.process]:
            process.kill()
        self.process.wait(10)


def until(condition, seconds: float = 60):
    """Wait for a condition and return it; fail when it never comes."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return result


@pytest.fixture
def program(tmp_path):
    """``program(most_bytes=, options=)``: a running ``bitenc serve``, its `Program`."""
    running = []

    def start(**options) -> Program:
        folder = tmp_path / f"server{len(running)}"
        folder.mkdir()
        running.append(Program(folder, **options))
        running[-1].port = running[-1].wait_for_port()
        return running[-1]

    yield start
    for program in running:
        if program.process.poll() is None:
            program.kill()


@pytest.fixture(scope="session")
def rewritten():
    """``rewritten(path, change)``: change a library's description, or give its bytes, and seal."""

    def rewrite(path: Path, change) -> None:
        content = path.read_bytes()
        (length,) = sealed._LENGTH.unpack(content[-sealed._TRAILER :][: sealed._LENGTH.size])
        code, described = content[: -sealed._TRAILER - length], content[: -sealed._TRAILER]
        description = json.loads(described[-length:])
        path.write_bytes(code)
        if isinstance(change, bytes):
            sealed.append_sealed(path, change)
        else:
            change(description)
            sealed.seal(path, description)

    return rewrite


@pytest.fixture(scope="session")
def wait_until():
    """``wait_until(condition, seconds=60)``: its first true value."""
    return until
