"""`doctor` names what is missing and the command that mends it."""

import msgspec
import pytest
import tvm

from tvm_bitenc.deploy import doctor as module
from tvm_bitenc.deploy import linker
from tvm_bitenc.deploy.connection import Connection
from tvm_bitenc.deploy.doctor import doctor
from tvm_bitenc.deploy.machine import Machine, describe_machine
from tvm_bitenc.target import native_target, target_names


def by_name(checks, side="here"):
    return {check.name: check for check in checks if check.side == side}


def test_all_is_missing(monkeypatch):
    monkeypatch.setattr(linker.shutil, "which", lambda name: None)
    monkeypatch.setattr(module, "package_version", lambda name: None)
    checks = by_name(doctor())
    expected = {
        "make": "sudo apt-get install make",
        "linker for this machine": "sudo apt-get install gcc libc6-dev",
        "extra torch": "pip install 'tvm-bitenc[torch]'",
    }
    if native_target().architecture == "x86_64":
        expected |= {
            "linker for aarch64": "pip install 'tvm-bitenc[cross]'",
            "aarch64-linux-gnu-gcc": (
                "sudo apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
            ),
            "arm-linux-gnueabihf-gcc": (
                "sudo apt-get install gcc-arm-linux-gnueabihf libc6-dev-armhf-cross"
            ),
            "qemu-aarch64": "sudo apt-get install qemu-user",
        }
    for name, cure in expected.items():
        assert not checks[name].is_ok and checks[name].cure == cure
    assert checks["TVM"].is_ok and tvm.__version__ in checks["TVM"].found


def test_what_is_there_needs_no_cure():
    checks = doctor()
    assert all(check.cure for check in checks if not check.is_ok)
    assert not any(check.cure for check in checks if check.is_ok)


def test_the_machine_is_plain_json():
    machine = describe_machine()
    assert msgspec.json.decode(msgspec.json.encode(machine), type=Machine) == machine
    assert machine.features == sorted(native_target().features)


@pytest.fixture
def device(monkeypatch):
    """``device(machine)``: the checks of a device that says this of itself."""

    def examine(**changes):
        machine = msgspec.structs.replace(describe_machine(), **changes)
        monkeypatch.setattr(module, "within", lambda *_: machine)
        return by_name(doctor(Connection()), "device")

    return examine


def test_a_device_of_another_kind(device):
    checks = device(triple="aarch64-linux-gnu", cpu="cortex-a72", features=["neon", "fp-armv8"])
    assert checks["features"].found == "fp-armv8, neon"
    assert checks["CPU"].found.startswith("cortex-a72 (")
    assert "aarch64" in checks["targets"].found and "x86" not in checks["targets"].found
    checks = device(triple="riscv64-linux-gnu", features=[])
    assert not checks["targets"].is_ok and "targets/README.md" in checks["targets"].cure
    assert set(checks["targets"].found.split(", ")).isdisjoint(target_names())


def test_a_device_with_other_versions(device):
    checks = device(tvm="0.99.0", tvm_bitenc=None, free_bytes=1000)
    assert checks["TVM"].cure == f"pip install 'apache-tvm=={tvm.__version__}'"
    assert not checks["disk"].is_ok


def test_a_server_of_plain_tvm(monkeypatch):
    monkeypatch.setattr(module, "within", lambda *_: Machine("aarch64-linux-gnu"))
    checks = by_name(doctor(Connection()), "device")
    assert checks["server"].cure == "bitenc serve" and checks["CPU"].is_ok
