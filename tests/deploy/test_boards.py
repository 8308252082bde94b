"""Networks on emulated boards, from C bundles: the very bits that this machine gives."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tvm_bitenc as be
from tests.models import randomised
from tvm_bitenc.nn import QConv2d, QLinear
from tvm_bitenc.nn.models import DigitsCNN
from tvm_bitenc.target import load_target

EXAMPLE = Path(__file__).parents[2] / "examples" / "cortex-m"
MICROCONTROLLERS = ("cortex-m3", "cortex-m4", "cortex-m7")
SMALL_IMAGE = 22 << 10  # Of the program for digits, beyond its weights.
SMALL_MEMORY = 1 << 10  # Of the example, beyond arena and input.


class Residual(nn.Module):
    """A residual of floats, batch-norm and several outputs: float arithmetic to the end."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = (
            QConv2d(channels, 16, 3, padding=1, weight_bits=bits, act_bits=bits)
            for channels, bits in ((3, 8), (16, 2))
        )
        self.bn1, self.bn2 = nn.BatchNorm2d(16), nn.BatchNorm2d(16)
        self.linear = QLinear(16, 50, weight_bits=4, act_bits=4)

    def forward(self, x):
        x = self.bn1(self.conv1(x))
        x = torch.relu(self.bn2(self.conv2(x)) + x)
        return torch.nn.functional.hardswish(self.linear(x.mean((2, 3))))


def slowly(*cases):
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


def digits():
    return DigitsCNN(2, 2), torch.randint(0, 17, (1, 1, 8, 8)).float()


def residual():
    return Residual(), torch.randn(1, 3, 7, 7)


def network(make):
    torch.manual_seed(0)
    model, x = make()
    return be.from_torch(randomised(model), (x,)), x.numpy()


def make(*arguments, folder):
    done = subprocess.run(
        ["make", *arguments], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "warning" not in done.stderr, done.stdout + done.stderr


def on_microcontroller(mod, x, cpu, folder):
    """Output of a network on a board of QEMU's, by the example's own Makefile."""
    model = be.build(mod, cpu)
    x.tofile(model.export_c(folder) / "x.bin")
    make(f"CPU={cpu}", f"BUNDLE={folder}", "run", folder=EXAMPLE)
    (spec,) = model.outputs
    return np.fromfile(folder / "y.bin", spec.dtype).reshape(spec.shape)


@pytest.fixture(scope="session")
def board_tools():
    tools = ("make", "arm-none-eabi-gcc", "qemu-system-arm")
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        packages = "make qemu-system-arm gcc-arm-none-eabi libnewlib-arm-none-eabi"
        pytest.skip(f"{', '.join(missing)} missing: apt-get install {packages}")


@pytest.mark.sweep(1)
@pytest.mark.parametrize(
    "cpu, make_network",
    [
        *[("cortex-m3", digits), ("cortex-m4", residual)],
        *slowly(("cortex-m4", digits), ("cortex-m7", digits)),
        *slowly(("cortex-m3", residual), ("cortex-m7", residual)),
    ],
)
def test_microcontrollers(cpu, make_network, board_tools, tmp_path, same):
    mod, x = network(make_network)
    expected = be.build(mod, threads=1)(x)
    found = on_microcontroller(mod, x, cpu, tmp_path / "bundle")
    assert len(np.unique(expected)) > 8 and same(found, expected)
    if make_network is digits:
        check_is_small(tmp_path / "bundle", x.nbytes)


def check_is_small(bundle, input_bytes):
    printed = subprocess.run(
        ["arm-none-eabi-size", "net.elf"], cwd=bundle, capture_output=True, text=True
    ).stdout.splitlines()
    code_and_weights, initialised, zeroed = map(int, printed[1].split()[:3])
    weights = (bundle / "net_weights.bin").stat().st_size
    header = (bundle / "net.h").read_text()
    (arena,) = map(int, re.findall(r"NET_ARENA_BYTES (\d+)", header))
    assert code_and_weights + initialised - weights <= SMALL_IMAGE
    assert zeroed <= arena + input_bytes + SMALL_MEMORY


@pytest.mark.slow
def test_the_page_as_it_stands(board_tools, tmp_path, monkeypatch, same):
    """Its code in Python and C, and its commands, in the checkout's place."""
    text = (EXAMPLE.parents[1] / "docs" / "microcontrollers.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names = {}
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(code, "microcontrollers.md", "exec"), names)
    lines = re.findall(r"^    ((?:make -C examples|arm-none-eabi-size).*)$", text, re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        line = line.replace("examples/cortex-m", str(EXAMPLE))
        subprocess.run(["sh", "-ec", line], check=True, capture_output=True, timeout=120)
    found = np.fromfile("bundle/y.bin", "float32").reshape(1, 10)
    expected = be.build(be.from_torch(names["model"], (names["x"],)), threads=1)(names["x"])
    assert same(found, expected)
    (own,) = re.findall(r"```c\n(.*?)```", text, re.DOTALL)
    Path("own.c").write_text(own)
    (compiler,) = re.findall(r"^CC := (.*)$", Path("bundle/Makefile").read_text(), re.MULTILINE)
    options = ["-std=c11", "-Wall", "-Werror", "-Ibundle", "-c", "own.c"]
    subprocess.run([*compiler.split(), *options], check=True, capture_output=True)


def test_boards_of_the_example_are_those_of_the_targets():
    boards = dict(re.findall(r"^BOARD_(\S+) := (\S+)", (EXAMPLE / "Makefile").read_text(), re.M))
    emulators = {name: f"qemu-system-arm -M {board}" for name, board in boards.items()}
    assert emulators == {name: load_target(name).emulator for name in MICROCONTROLLERS}


@pytest.mark.parametrize(
    "name, make_network",
    [
        ("riscv64", residual),
        *slowly(("riscv64", digits), ("riscv64-zbb", digits), ("riscv64-v", digits)),
    ],
)
def test_riscv(name, make_network, tmp_path, same):
    tools = ("make", "riscv64-linux-gnu-gcc", "qemu-riscv64")
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        packages = "make qemu-user gcc-riscv64-linux-gnu libc6-dev-riscv64-cross"
        pytest.skip(f"{', '.join(missing)} missing: apt-get install {packages}")
    mod, x = network(make_network)
    expected, model = be.build(mod, threads=1)(x), be.build(mod, name, threads=1)
    folder = model.export_c(tmp_path / "bundle")
    x.tofile(folder / "x.bin")
    make("STATIC=1", folder=folder)
    command = [*load_target(name).emulator.split(), "./net", "x.bin", "y.bin"]
    subprocess.run(command, cwd=folder, check=True, timeout=100)
    found = np.fromfile(folder / "y.bin", expected.dtype).reshape(expected.shape)
    assert same(found, expected)
