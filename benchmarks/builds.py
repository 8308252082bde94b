"""What a build costs: the CPU's seconds of fresh processes.

    python -m benchmarks.builds

Small networks count a whole process, imports included: two dense layers, 16 wide, from an ONNX file
and from torch. Python's path to torch is closed for the first of these rows, as where it isn't
installed; else TVM imports it. Large ones count `build` alone. The least of three counts.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from .machine import cpu_name
from .network_peers import PREPARED, QDQ, export, quantize
from .results import print_table

SHAPE = (1, 16)
RUNS = 3
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None\n"
FROM_ONNX = """
import sys
import tvm_bitenc
tvm_bitenc.build(tvm_bitenc.from_onnx(sys.argv[1]), threads=1)
"""
FROM_TORCH = """
import torch
import tvm_bitenc
from tvm_bitenc.nn import QLinear
model = torch.nn.Sequential(*(QLinear(16, 16, weight_bits=2, act_bits=2) for _ in range(2)))
tvm_bitenc.build(tvm_bitenc.from_torch(model.eval(), (torch.zeros(1, 16),)), threads=1)
"""
BUILD_ALONE = """
import torch
import tvm_bitenc
from tvm_bitenc.nn import QLinear, ResNet18
model, shape = {model}, {shape}
module = tvm_bitenc.from_torch(model.eval(), (torch.zeros(shape),))
start = used()
tvm_bitenc.build(module, threads=1)
"""
DENSE = BUILD_ALONE.format(model="QLinear(4096, 4096, weight_bits=8, act_bits=8)", shape=(1, 4096))
RESNET = BUILD_ALONE.format(model="ResNet18(8, 8)", shape=(1, 3, 224, 224))
HELP = """
import contextlib, sys
sys.argv = ["bitenc", "--help"]
from tvm_bitenc.cli import main
with contextlib.suppress(SystemExit):
    main()
"""
# A script may start to count late: what it imports and makes before that is left out.
MEASURED = """
import resource

def used():
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)

start = 0.0
{script}
print(used() - start)
"""
ROWS: dict[str, str] = {
    "bitenc --help": HELP,
    "two dense layers from ONNX, where torch isn't installed": WITHOUT_TORCH + FROM_ONNX,
    "the same where torch is": FROM_ONNX,
    "two dense layers from torch": FROM_TORCH,
    "build of a dense layer 4096 x 4096, W8A8": DENSE,
    "build of ResNet-18, W8A8": RESNET,
}


def cpu_seconds(script: str, path: Path) -> float:
    """CPU seconds of a fresh process that runs a script with a path as its argument."""
    command = [sys.executable, "-c", MEASURED.format(script=script), str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def write_network(path: Path) -> None:
    """Write two dense layers as ONNX Runtime's quantizer makes them: 8 bits, QDQ."""
    prepared = path.with_name(PREPARED)
    export(torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)), SHAPE, prepared)
    quantize(prepared, path, SHAPE)


def main() -> dict[str, float]:
    """Measure, print a table, and return the seconds of each row."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / QDQ
        write_network(path)
        for name, script in ROWS.items():
            found[name] = min(cpu_seconds(script, path) for _ in range(RUNS))
    print(cpu_name())
    rows = [[name, f"{seconds:.2f} s of CPU"] for name, seconds in found.items()]
    print_table("Builds in fresh processes", ["", "least of three"], rows)
    return found


if __name__ == "__main__":
    main()
