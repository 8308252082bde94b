"""Whole networks on an emulated AArch64 machine: C bundles, and RPC with a Python of its own.

The server on loopback is an AArch64 Python with TVM, run by QEMU.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

import tvm_bitenc as be
from tvm_bitenc.compiled import CompiledModel
from tvm_bitenc.deploy.connection import Connection
from tvm_bitenc.deploy.doctor import doctor
from tvm_bitenc.deploy.remote import deploy
from tvm_bitenc.errors import TargetError
from tvm_bitenc.nn.models import DigitsCNN, ResNet18
from tvm_bitenc.target import native_target

ROOT = Path(be.__file__).parents[1]
PYTHON = ROOT / "build" / "aarch64" / "python"  # Made by `make aarch64`.
COMPILER = "aarch64-linux-gnu-gcc"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not shutil.which("qemu-aarch64") or not shutil.which(COMPILER),
        reason="apt-get install qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    ),
    pytest.mark.skipif(native_target().architecture == "aarch64", reason="AArch64 is native here"),
]
SERVER = """
import sys

sys.executable = sys.argv[1]  # TVM starts a worker with it, which needs QEMU as well.
from tvm_bitenc.deploy.serve import Server

with Server(port=0) as server:
    print("port", server.port, flush=True)
    server.serve_forever()
"""


@pytest.fixture(scope="module")
def there(tmp_path_factory, wait_until):
    """A connection to the server."""
    if not PYTHON.exists():
        pytest.skip("make aarch64")
    folder = tmp_path_factory.mktemp("aarch64")
    log = folder / "log"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    with log.open("w") as output:
        process = subprocess.Popen(
            [PYTHON, "-c", SERVER, PYTHON], stdout=output, stderr=output, env=environment
        )
    try:
        wait_until(lambda: "port" in log.read_text() or process.poll() is not None, 240)
        assert process.poll() is None, log.read_text()
        yield Connection(port=int(log.read_text().split("port ")[1].split()[0]), timeout=200)
    finally:
        processes = psutil.Process(process.pid).children(recursive=True)
        for running in [*processes, process]:
            running.kill()
        process.wait()


@dataclass
class Network:
    """A network compiled for this machine and for AArch64, and an input."""

    here: CompiledModel
    there: CompiledModel
    x: np.ndarray


def network(model, x) -> Network:
    module = be.from_torch(model.eval(), (x,))
    here, there = (be.build(module, target, threads=1) for target in ("native", "aarch64"))
    return Network(here, there, x.numpy())


@pytest.fixture(scope="module")
def digits():
    torch.manual_seed(0)
    return network(DigitsCNN(2, 2), torch.randint(0, 17, (1, 1, 8, 8)).float())


@pytest.fixture(scope="module")
def resnet18():
    torch.manual_seed(0)
    return network(ResNet18(2, 2, num_classes=10), torch.randn(1, 3, 64, 64))


def test_a_bundle_of_resnet18(resnet18, tmp_path, same):
    folder = resnet18.there.export_c(tmp_path / "bundle")
    subprocess.run(["make", "STATIC=1"], cwd=folder, check=True, capture_output=True)
    resnet18.x.tofile(folder / "x.bin")
    command = ["qemu-aarch64", folder / "net", folder / "x.bin", folder / "y.bin"]
    subprocess.run(command, check=True, timeout=200)
    expected = resnet18.here(resnet18.x)
    assert same(np.fromfile(folder / "y.bin", np.float32).reshape(expected.shape), expected)


@pytest.mark.parametrize("name", ["digits", "resnet18"])
def test_networks_through_rpc(name, there, request, tmp_path, same):
    net = request.getfixturevalue(name)
    path = net.there.export_library(tmp_path / "net.so", cc=COMPILER)
    done = deploy(path, [net.x], there, number=1)
    assert same(done.outputs[0], net.here(net.x))
    assert len(done.benchmark.layers) >= len(net.there.report().layers)


LOAD = """
import sys
import numpy as np
import tvm_bitenc as be
from tvm_bitenc.runtime.cpu import cpu_features

lib = be.load(sys.argv[1])
lib(np.load(sys.argv[2])).tofile(sys.argv[3])
assert "tvm" not in sys.modules and {"neon", "dotprod"} <= cpu_features()
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_a_library_is_loaded_without_tvm(threads, tmp_path, same):
    """Features of the CPU as the kernel tells them; loops in OpenMP's threads."""
    if not PYTHON.exists():
        pytest.skip("make aarch64")
    torch.manual_seed(0)
    x = torch.randint(0, 17, (1, 1, 8, 8)).float()
    module = be.from_torch(DigitsCNN(2, 2).eval(), (x,))
    lib = be.build(module, "cortex-a76", threads=threads)
    path = lib.export_library(tmp_path / "net.so", cc=COMPILER)
    np.save(tmp_path / "x.npy", x.numpy())
    command = [PYTHON, "-c", LOAD, path, tmp_path / "x.npy", tmp_path / "y.bin"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    expected = be.build(module, threads=1)(x)
    assert same(np.fromfile(tmp_path / "y.bin", np.float32).reshape(expected.shape), expected)


def test_a_library_for_this_machine_is_refused(there, digits, tmp_path):
    path = digits.here.export_library(tmp_path / "net.so")
    with pytest.raises(TargetError, match="is aarch64, but the library is for"):
        deploy(path, [digits.x], there)


def test_doctor_sees_it(there):
    checks = {check.name: check for check in doctor(there) if check.side == "device"}
    assert "aarch64" in checks["CPU"].found and "aarch64" in checks["targets"].found
