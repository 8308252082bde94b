"""The commands and examples of docs/deploy.md, as far as they need no board."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import tvm_bitenc as be
from tvm_bitenc.deploy import linker
from tvm_bitenc.errors import TargetError
from tvm_bitenc.target import native_target

TEXT = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def command(start: str) -> list[str]:
    """The indented command that starts so, without its comment."""
    (line,) = re.findall(
        rf"^    ({re.escape(start)}[^\\\n]*(?:\\\n[^\\\n]*)*)$", TEXT, re.MULTILINE
    )
    return shlex.split(line.replace("\\\n", " "), comments=True)


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which("aarch64-linux-gnu-gcc") or not shutil.which("qemu-aarch64"),
    reason="apt-get install qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
)
def test_both_ways_as_far_as_the_pi(tmp_path, monkeypatch, same):
    monkeypatch.setattr(linker, "zig_command", lambda target: None)
    monkeypatch.chdir(tmp_path)
    compiling, loading = blocks("python")
    names = {}
    exec(compile(compiling, "deploy.md", "exec"), names)
    subprocess.run(command("make -C bundle STATIC"), check=True, capture_output=True)
    subprocess.run(command("qemu-aarch64 bundle/net"), check=True)
    x = names["x"].numpy()
    program = torch.export.load("net.pt2")
    expected = be.build(be.from_torch(program), threads=1)(x)
    assert same(np.fromfile("y.bin", "float32").reshape(expected.shape), expected)

    Path("own.c").write_text(blocks("c")[0])
    subprocess.run(command("aarch64-linux-gnu-gcc -Ibundle"), check=True)
    assert subprocess.run(["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", "./own"]).returncode == 0
    if native_target().architecture != "aarch64":
        with pytest.raises(TargetError, match="is for aarch64"):
            exec(compile(loading, "deploy.md", "exec"), {})


def test_options_exist(bitenc):
    for name in "deploy", "serve", "doctor":
        _, printed = bitenc(name, "--help")
        commands = re.findall(rf"^    (?:env/bin/)?bitenc {name} (.*)$", TEXT, re.MULTILINE)
        wanted = {option for line in commands for option in re.findall(r"--[a-z-]+", line)}
        assert wanted and all(option in printed.out for option in wanted)
