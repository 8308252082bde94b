"""Peak memory of one saved network, in a process of its own.

    python -m benchmarks.memory library|onnxruntime|openvino|torch FILE --shape 1x3x224x224

Prints by how many bytes the resident set grew from before the network was loaded, all packages
being imported: to the peak of loading it, and to the peak of running it a few times later on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from .network_peers import RUNTIMES

RUNS = 3


def peak_bytes(runtime: str, path: Path, shape: Sequence[int], threads: int = 1) -> dict[str, int]:
    """Measure a saved network in a new process: "loading" and "running"."""
    command = [sys.executable, "-m", "benchmarks.memory", runtime, str(path)]
    options = [f"--shape={'x'.join(map(str, shape))}", f"--threads={threads}"]
    done = subprocess.run([*command, *options], check=True, stdout=subprocess.PIPE, text=True)
    loading, running = done.stdout.split()[-2:]
    return {"loading": int(loading), "running": int(running)}


def main() -> None:
    """Run what the command line names, and print its growth."""
    parser = argparse.ArgumentParser(description="Peak memory of one saved network.")
    parser.add_argument("runtime", choices=RUNTIMES)
    parser.add_argument("path", type=Path)
    parser.add_argument("--shape", required=True, help="of the input, such as 1x3x224x224")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    before = _reset_peak()
    shape = [int(size) for size in options.shape.split("x")]
    run = RUNTIMES[options.runtime](options.path, shape, options.threads)
    run()  # The first run still prepares.
    loading = _peak()
    _reset_peak()
    for _ in range(RUNS):
        run()
    print(loading - before, _peak() - before)


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
