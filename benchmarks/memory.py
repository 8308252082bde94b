"""Peak memory of one saved network, in a process of its own.

    python -m benchmarks.memory library|onnx|torch FILE

Prints by how many bytes the resident set grew from before the network was loaded, all packages
being imported: to the peak of loading it, and to the peak of running it a few times later on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import tvm_bitenc

from .peers import onnxruntime_run, random_array
from .resnet_peers import IMAGE_SHAPE
from .workloads import library_run

RUNS = 3


def peak_bytes(kind: str, path: Path, threads: int = 1) -> dict[str, int]:
    """Measure a saved network in a new process: "loading" and "running"."""
    command = [sys.executable, "-m", "benchmarks.memory", kind, str(path), f"--threads={threads}"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    loading, running = done.stdout.split()[-2:]
    return {"loading": int(loading), "running": int(running)}


def main() -> None:
    """Run what the command line names, and print its growth."""
    parser = argparse.ArgumentParser(description="Peak memory of one saved network.")
    parser.add_argument("kind", choices=LOADERS)
    parser.add_argument("path", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    before = _reset_peak()
    run = LOADERS[options.kind](options.path, options.threads)
    run()  # The first run still prepares.
    loading = _peak()
    _reset_peak()
    for _ in range(RUNS):
        run()
    print(loading - before, _peak() - before)


def _load_library(path: Path, _threads: int) -> Callable[[], object]:
    return library_run(tvm_bitenc.load(path), random_array(IMAGE_SHAPE, np.float32))


def _load_onnx(path: Path, threads: int) -> Callable[[], object]:
    return onnxruntime_run(path, threads=threads)


def _load_torch(path: Path, _threads: int) -> Callable[[], object]:
    return torch_network_run(torch.load(path, weights_only=False))


def torch_network_run(model: torch.nn.Module) -> Callable[[], object]:
    """Return one run of a network in torch, channels last."""
    image = torch.from_numpy(random_array(IMAGE_SHAPE, np.float32))
    image, model = (t.to(memory_format=torch.channels_last) for t in (image, model))
    return torch.inference_mode()(lambda: model(image))


LOADERS = {"library": _load_library, "onnx": _load_onnx, "torch": _load_torch}


def _reset_peak() -> int:
    """Let the peak start anew; return the resident set, in bytes. Linux only."""
    Path("/proc/self/clear_refs").write_text("5")  # See proc(5).
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            kilobytes = int(line.split()[1])
            return 1024 * kilobytes
    raise KeyError(key)


if __name__ == "__main__":
    main()
