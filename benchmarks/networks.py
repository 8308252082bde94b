"""Time whole networks, from floats to floats, against ONNX Runtime, OpenVINO and torch.

    python -m benchmarks.networks --bits 1,1 2,2
    python -m benchmarks.networks --networks resnet mlp

Each network is timed at all bits beside all peers, in turns, as a user calls it. Also prints the
sizes of files, the time to build, and what more threads than one bring; with --memory how much
memory loading and running take, and with --kernels what each kernel takes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

import tvm_bitenc

from .machine import this_machine
from .memory import peak_bytes
from .models import NETWORKS, Network
from .network_peers import PEERS, RUNTIMES, write_files
from .network_tables import ONE_THREAD, print_kernels, print_network, print_summary
from .peers import Run, random_array
from .results import OURS, Bits, bits_name, first_line, parser, print_machine, write_json
from .timing import fastest
from .workloads import library_run

DEFAULT_BITS = [(1, 1), (2, 2), (4, 4), (8, 8)]


@dataclass(frozen=True)
class Contender:
    """What takes part in one network's race: one run of it, its file, and what is known already."""

    name: str
    runtime: str
    path: Path
    run: Run
    record: dict


def main(arguments: Sequence[str] | None = None) -> list[dict]:
    """Measure, print and write what the command line asks for; return a record per network."""
    options = _parser().parse_args(arguments)
    chosen = [
        name for name in NETWORKS if any(part.lower() in name.lower() for part in options.networks)
    ]
    if not chosen:
        raise SystemExit(f"No network matches. They are: {', '.join(NETWORKS)}")
    machine = this_machine()
    print_machine(machine, options.threads)
    networks = []
    for name in chosen:
        networks.append(measure(name, NETWORKS[name], options))
        print_network(networks[-1])
        if options.kernels:
            print_kernels(networks[-1])
    print_summary(networks)
    content = dict(threads=options.threads, networks=networks)
    write_json(options.json, machine, "benchmarks.networks", **content)
    return networks


def _parser():
    made = parser("Time whole networks, floats to floats.", DEFAULT_BITS)
    made.add_argument(
        "--networks",
        nargs="+",
        default=[""],
        metavar="TEXT",
        help="only networks whose name contains one of these; default all",
    )
    made.add_argument("--seconds", type=float, default=3.0, help="budget per contender; default 3")
    made.add_argument("--kernels", action="store_true", help="print the time of each kernel")
    made.add_argument("--memory", action="store_true", help="measure peaks, in fresh processes")
    return made


def measure(name: str, network: Network, options) -> dict:
    """Build everything for one network, time it in turns, and weigh it.

    What can't take part is left out, and the record says why.
    """
    print(f"measuring {name}", flush=True)
    torch.set_num_threads(options.threads)
    twin = network.twin()
    contenders, left_out = [], {}

    def enter(entrant: str, make: Callable[[], Contender]) -> None:
        try:
            contenders.append(make())
        except Exception as error:  # Of any of the packages that take part.
            left_out[entrant] = first_line(error)

    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        failures = write_files(twin, network.shape, folder)
        for peer, (_, file) in PEERS.items():
            if file in failures:
                left_out[peer] = failures[file]
            else:
                enter(peer, partial(_peer, peer, network, folder, options.threads))
        # The pool is as large as the library that was built last wants it.
        for threads in sorted({1, options.threads}):
            for pair in options.bits:
                entrant = f"{OURS} {bits_name(pair)}"
                if threads < options.threads:
                    entrant += ONE_THREAD
                make = partial(_ours, entrant, network, twin, pair, folder, options, threads)
                enter(entrant, make)
        runs = {contender.name: contender.run for contender in contenders}
        seconds = fastest(runs, options.seconds * len(runs), options.threads)
        records = [_weighed(c, network, options) | {"seconds": seconds[c.name]} for c in contenders]
    return dict(network=name, shape=list(network.shape), contenders=records, left_out=left_out)


def _peer(name: str, network: Network, folder: Path, threads: int) -> Contender:
    runtime, file = PEERS[name]
    run = RUNTIMES[runtime](folder / file, network.shape, threads)
    run()
    return Contender(name, runtime, folder / file, run, {})


def _ours(
    name: str,
    network: Network,
    twin: torch.nn.Module,
    pair: Bits,
    folder: Path,
    options,
    threads: int,
) -> Contender:
    """Build and save the network of these bits."""
    model = network.quantized(pair, twin)
    x = random_array(network.shape, np.float32)
    start = time.perf_counter()
    module = tvm_bitenc.from_torch(model, (torch.from_numpy(x),))
    library = tvm_bitenc.build(module, options.target, options.strategy, threads)
    build_seconds = time.perf_counter() - start
    path = folder / f"{name.replace(' ', '-')}.so"
    library.export_library(path)
    record = {
        "bits": bits_name(pair),
        "build_seconds": build_seconds,
        "kernels": library.benchmark(x, number=1).layers,
        "report": library.report().to_dict(),
    }
    return Contender(name, "library", path, library_run(library, x), record)


def _weighed(contender: Contender, network: Network, options) -> dict:
    """Record of a contender, with the sizes of its file and of its memory."""
    path = contender.path
    record = {"name": contender.name, "file_bytes": path.stat().st_size} | contender.record
    if options.memory:
        shape, threads = network.shape, options.threads
        record["peak_bytes"] = peak_bytes(contender.runtime, path, shape, threads)
    return record


if __name__ == "__main__":
    main()
