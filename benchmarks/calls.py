"""What a library costs besides its kernels.

    python -m benchmarks.calls                     # ResNet-18 W2A2
    python -m benchmarks.calls --bits 1,1 --threads 2

Prints the CPU's seconds and the peak of memory of a fresh process that loads a network and runs it
once, beside ONNX Runtime's on the network in float32; a call of two dense layers, 16 wide; what a
call adds to its kernels where 0.8 MB go in and come out; and the network's speed with more threads.
Linux only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

import tvm_bitenc
from tvm_bitenc.compiled import CompiledModel
from tvm_bitenc.nn import QLinear, ResNet18

from .machine import cpu_name
from .models import IMAGENET
from .network_peers import export
from .results import bits, bits_name, print_table
from .timing import fastest

WIDE = (1, 64, 56, 56)  # 0.8 MB of float32.
RUNS = 300
SECONDS = 6.0
FRESH = """
import resource, sys
import numpy as np

path, shape = sys.argv[1], [int(size) for size in sys.argv[2].split("x")]
x = np.zeros(shape, np.float32)
if path.endswith(".so"):
    import tvm_bitenc
    tvm_bitenc.load(path)(x)
else:
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    session.run(None, {session.get_inputs()[0].name: x})
used = resource.getrusage(resource.RUSAGE_SELF)
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(used.ru_utime + used.ru_stime, int(peak) / 1024, *{"tvm", "torch"} & set(sys.modules))
"""


def fresh_process(path: Path) -> tuple[float, float, list[str]]:
    """CPU seconds, MB, and which of TVM and torch were imported, to load and run a network once."""
    command = [sys.executable, "-c", FRESH, str(path), "x".join(map(str, IMAGENET))]
    done = [subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(3)]
    seconds, megabytes, *heavy = min((run.stdout.split() for run in done), key=_seconds)
    return float(seconds), float(megabytes), heavy


def _seconds(words: list[str]) -> float:
    return float(words[0])


def compiled(model: torch.nn.Module, shape: Sequence[int], threads: int = 1) -> CompiledModel:
    """Compile a model for an input of a shape."""
    module = tvm_bitenc.from_torch(model.eval(), (torch.rand(*shape),))
    return tvm_bitenc.build(module, threads=threads)


def seconds_beside_kernels(lib: CompiledModel, x: np.ndarray) -> float:
    """What a call takes beside its kernels: the least of both, in turns."""
    found = [lib.benchmark(x, number=1, repeat=1) for _ in range(RUNS)]
    return min(b.best for b in found) - min(sum(s for _, s in b.calls) for b in found)


def speedup(model: torch.nn.Module, x: np.ndarray, threads: int) -> float:
    """How many times as fast a network is with more threads as with one."""
    libs = {count: compiled(model, x.shape, count) for count in (1, threads)}
    runs = {str(count): partial(lib, x) for count, lib in libs.items()}
    best = fastest(runs, budget=SECONDS, threads=threads)
    return best["1"] / best[str(threads)]


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Measure what the command line says, and print a table."""
    options = _parser().parse_args(arguments)
    model, x = ResNet18(*options.bits), np.zeros(IMAGENET, np.float32)
    rows, found = [], {}
    with tempfile.TemporaryDirectory() as folder:
        files = {"library": Path(folder) / "net.so", "ort fp32": Path(folder) / "net.onnx"}
        compiled(model, IMAGENET).export_library(files["library"])
        export(ResNet18(None, None).eval(), IMAGENET, files["ort fp32"])
        for name, path in files.items():
            seconds, megabytes, heavy = fresh_process(path)
            found[name] = seconds
            title = f"{name}: a fresh process loads the network and runs it"
            imported = f", imports {' and '.join(heavy)}" if heavy else ""
            rows.append([title, f"{seconds:.2f} s of CPU, {megabytes:.0f} MB{imported}"])
    dense = QLinear(16, 16, weight_bits=2, act_bits=2), QLinear(16, 16, weight_bits=2, act_bits=2)
    lib, row = compiled(torch.nn.Sequential(*dense), (1, 16)), np.zeros((1, 16), np.float32)
    found["call"] = fastest({"call": partial(lib, row)}, budget=1.0)["call"]
    rows.append(["a call of two dense layers, 16 wide", f"{1e6 * found['call']:.1f} us"])
    lib = compiled(torch.nn.ReLU(), WIDE)
    found["beside"] = seconds_beside_kernels(lib, np.ones(WIDE, np.float32))
    rows.append(["0.8 MB in and out, beside the kernel", f"{1e6 * found['beside']:.1f} us"])
    found["speedup"] = speedup(model, x, options.threads)
    rows.append([f"{options.threads} threads", f"{found['speedup']:.2f} x one"])
    print(cpu_name())
    print_table(f"ResNet-18 {bits_name(options.bits)}", ["", "least"], rows)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="What a library costs besides its kernels.")
    parser.add_argument("--bits", type=bits, default=(2, 2), help="default 2,2")
    parser.add_argument("--threads", type=int, default=2, help="of the last row; default 2")
    return parser


if __name__ == "__main__":
    main()
