"""Many threads in one model: calls a second, and what one more caller costs in memory.

python -m benchmarks.concurrent --callers 1 2 4 8
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Sequence

import numpy as np
import torch

import tvm_bitenc
from tvm_bitenc.compiled import CompiledModel
from tvm_bitenc.nn import ResNet18

from .machine import cpu_name
from .results import print_table

IMAGE = (1, 3, 224, 224)


def calls_per_second(lib: CompiledModel, x: np.ndarray, callers: int, seconds: float) -> float:
    """Let threads call a model in a loop for a while; the sum of what they got done."""
    start, counts = threading.Barrier(callers + 1), [0] * callers
    is_over = threading.Event()

    def call(i: int) -> None:
        lib(x)  # The first one of a thread sets it up.
        start.wait()
        while not is_over.is_set():
            lib(x)
            counts[i] += 1

    threads = [threading.Thread(target=call, args=(i,)) for i in range(callers)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    time.sleep(seconds)
    took = time.perf_counter() - began
    done = sum(counts)
    is_over.set()
    for thread in threads:
        thread.join()
    return done / took


def bytes_per_caller(lib: CompiledModel) -> int:
    """Memory of each call that runs at the same time as others: one arena."""
    return lib.program.network.arena.of(batch=1)


def main(arguments: Sequence[str] | None = None) -> dict[int, float]:
    """Measure what the command line says, and print a table."""
    parser = argparse.ArgumentParser(description="Many threads in one model.")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--threads", type=int, default=1, help="of each call; default 1")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each row")
    parser.add_argument("--image", type=int, default=IMAGE[-1], help="height and width")
    options = parser.parse_args(arguments)
    image = torch.rand(1, 3, options.image, options.image)
    model = ResNet18(weight_bits=2, act_bits=2).eval()
    lib = tvm_bitenc.build(tvm_bitenc.from_torch(model, (image,)), threads=options.threads)
    x = image.numpy()
    found = {n: calls_per_second(lib, x, n, options.seconds) for n in options.callers}
    first = next(iter(found.values()))
    rows = [[str(n), f"{rate:.1f}", f"{rate / first:.2f}"] for n, rate in found.items()]
    print(cpu_name())
    title = f"ResNet-18 W2A2, {options.image} pixels, {options.threads} threads a call"
    print_table(title, ["callers", "calls/s", f"x {options.callers[0]} caller"], rows)
    print(f"{bytes_per_caller(lib) / 1024:.1f} KiB for each further caller, weights shared")
    return found


if __name__ == "__main__":
    main()
