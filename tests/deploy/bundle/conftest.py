"""Programs made of bundles, for this machine and, under QEMU, for ARM."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import tvm_bitenc as be
from tvm_bitenc.compiled import CompiledModel


@dataclass(frozen=True)
class Machine:
    """A target, its compiler, how to run its programs here, and Debian's packages for that."""

    target: str
    compiler: str
    packages: str
    emulator: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        return [tool for tool in ("make", self.compiler, *self.emulator[:1]) if not _found(tool)]


def _found(tool: str) -> bool:
    return shutil.which(tool) is not None


MACHINES = {
    "native": Machine("native", "gcc", "make gcc libc6-dev"),
    "aarch64": Machine(
        "aarch64",
        "aarch64-linux-gnu-gcc",
        "make qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
        ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"),
    ),
    "armv7-neon": Machine(
        "armv7-neon",
        "arm-linux-gnueabihf-gcc",
        "make qemu-user gcc-arm-linux-gnueabihf libc6-dev-armhf-cross",
        ("qemu-arm", "-L", "/usr/arm-linux-gnueabihf"),
    ),
}


@pytest.fixture(params=MACHINES)
def machine(request) -> Machine:
    """Each target that a bundle is for; skipped where its tools are missing."""
    machine = MACHINES[request.param]
    if machine.missing:
        pytest.skip(f"{', '.join(machine.missing)} missing: apt-get install {machine.packages}")
    return machine


@dataclass
class Bundle:
    """A bundle on disk, to be built and run."""

    model: CompiledModel
    folder: Path
    machine: Machine

    def make(self, *arguments: str) -> None:
        done = subprocess.run(
            ["make", *arguments], cwd=self.folder, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr

    def execute(self, program: str, *arguments) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*self.machine.emulator, str(self.folder / program), *map(str, arguments)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Outputs of the example program."""
        files = [self.folder / f"in{i}.bin" for i in range(len(inputs))]
        for file, array in zip(files, inputs):
            array.tofile(file)
        results = [self.folder / f"out{i}.bin" for i in range(len(self.model.outputs))]
        done = self.execute("net", *files, *results)
        assert done.returncode == 0, done.stderr
        return [
            np.fromfile(file, spec.dtype).reshape(spec.shape)
            for file, spec in zip(results, self.model.outputs)
        ]


@pytest.fixture
def bundle_of(machine, tmp_path):
    """``bundle_of(mod, **options of build)``: its `Bundle`, not made yet."""

    def export(mod, **options) -> Bundle:
        model = be.build(mod, machine.target, threads=options.pop("threads", 1), **options)
        return Bundle(model, model.export_c(tmp_path / "bundle"), machine)

    return export


@pytest.fixture
def made(bundle_of):
    """``made(mod, **options of build)``: its `Bundle`, with the example program."""

    def make(mod, **options) -> Bundle:
        bundle = bundle_of(mod, **options)
        bundle.make()
        return bundle

    return make
