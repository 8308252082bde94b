"""Time ResNet-18 from float image to float logits against ONNX Runtime and torch.

    python -m benchmarks.networks --bits 1,1 2,2

Also prints memory, size of the file, build time, what more threads than one bring, and with
--kernels what each kernel takes.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch

import tvm_bitenc
from tvm_bitenc.nn import ResNet18, init_from

from .machine import this_machine
from .memory import peak_bytes, torch_network_run
from .peers import onnxruntime_run, random_array
from .resnet_peers import IMAGE_SHAPE, float_network, write_int8_network
from .results import OURS, PEERS, Bits, bits_name, parser, print_machine, print_table, write_json
from .timing import fastest
from .workloads import library_run

NETWORK = "ResNet-18"
DEFAULT_BITS = [(1, 1), (2, 2)]
CLASSES = 1000
ONE_THREAD = " 1 thread"  # Behind the names of what runs beside those with more.

Contender = tuple[dict, Callable[[], object]]


def main(arguments: Sequence[str] | None = None) -> list[dict]:
    """Measure, print and write what the command line asks for; return the records."""
    options = _parser().parse_args(arguments)
    machine = this_machine()
    print_machine(machine, options.threads)
    records = measure(options)
    print_records(records, options.kernels)
    content = dict(network=NETWORK, threads=options.threads, contenders=records)
    write_json(options.json, machine, "benchmarks.networks", **content)
    return records


def _parser():
    made = parser(f"Time {NETWORK}, float image to float logits.", DEFAULT_BITS)
    made.add_argument("--seconds", type=float, default=3.0, help="budget per contender; default 3")
    made.add_argument("--kernels", action="store_true", help="print the time of each kernel")
    return made


def measure(options) -> list[dict]:
    """Build everything, time it in turns, and weigh it; one record per contender."""
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    twin = ResNet18(None, None, CLASSES).eval()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        contenders = _peers(twin, folder, options.threads)
        # The pool is as large as the library that was built last wants it.
        for threads in sorted({1, options.threads}):
            for pair in options.bits:
                print(f"building {bits_name(pair)} for {threads} threads", flush=True)
                contenders.append(_ours(twin, pair, folder, options, threads))
        runs = {record["name"]: run for record, run in contenders}
        seconds = fastest(runs, options.seconds * len(runs), options.threads)
        return [
            record
            | {
                "seconds": seconds[record["name"]],
                "file_bytes": path.stat().st_size,
                "peak_bytes": peak_bytes(kind, path, options.threads),
            }
            for record, _ in contenders
            for kind, path in [_saved(folder, record["name"])]
        ]


def _saved(folder: Path, name: str) -> tuple[str, Path]:
    """Kind of a contender's file for `benchmarks.memory`, and the file."""
    endings = {"ort": ("onnx", ".onnx"), "torch": ("torch", ".pt"), OURS: ("library", ".so")}
    kind, ending = endings[name.split()[0]]
    return kind, folder / f"{name.replace(' ', '-')}{ending}"


def _peers(twin: ResNet18, folder: Path, threads: int) -> list[Contender]:
    logging.getLogger().setLevel(logging.ERROR)  # The quantizer advises what is done already.
    int8, fp32, torch_fp32 = (_saved(folder, name)[1] for name in PEERS)
    onnx.save(float_network(twin), fp32)
    write_int8_network(fp32, int8)
    torch.save(twin, torch_fp32)
    runs = [onnxruntime_run(path, threads=threads) for path in (int8, fp32)]
    runs.append(torch_network_run(twin))
    return [({"name": name}, run) for name, run in zip(PEERS, runs)]


def _ours(twin: ResNet18, pair: Bits, folder: Path, options, threads: int) -> Contender:
    """Build and save the network of these bits."""
    name = f"{OURS} {bits_name(pair)}"
    if threads < options.threads:
        name += ONE_THREAD
    model = init_from(ResNet18(*pair, CLASSES), twin).eval()
    image = random_array(IMAGE_SHAPE, np.float32)
    start = time.perf_counter()
    module = tvm_bitenc.from_torch(model, (torch.from_numpy(image),))
    library = tvm_bitenc.build(module, options.target, options.strategy, threads)
    build_seconds = time.perf_counter() - start
    library.export_library(_saved(folder, name)[1])
    report = library.report().to_dict()
    timed = library.benchmark(image, number=1)
    record = {
        "name": name,
        "build_seconds": build_seconds,
        "kernels": timed.layers,
        "report": report,
    }
    return record, library_run(library, image)


HEADINGS = (
    "",
    "ms",
    *(f"x {peer}" for peer in PEERS),
    "running MB",
    "loading MB",
    "file MB",
    "body weights",
    "build s",
    "x 1 thread",
)


def network_row(record: dict, records: Sequence[dict]) -> list[str]:
    """Cells of `HEADINGS`."""
    seconds = {other["name"]: other["seconds"] for other in records}
    single = seconds.get(record["name"] + ONE_THREAD)
    return [
        record["name"],
        f"{1e3 * record['seconds']:.2f}",
        *(f"{seconds[peer] / record['seconds']:.2f}" for peer in PEERS),
        *(f"{record['peak_bytes'][when] / 1e6:.1f}" for when in ("running", "loading")),
        f"{record['file_bytes'] / 1e6:.2f}",
        f"1/{_body_compression(record):.1f}" if "report" in record else "",
        f"{record['build_seconds']:.1f}" if "build_seconds" in record else "",
        f"{single / record['seconds']:.2f}" if single else "",
    ]


def _body_compression(record: dict) -> float:
    """How much smaller the weights between the first and the last layer are than in float32."""
    body = record["report"]["layers"][1:-1]
    return sum(r["float_bytes"] for r in body) / sum(r["stored_bytes"] for r in body)


def print_records(records: Sequence[dict], with_kernels: bool = False) -> None:
    """Print a row per contender, and what the kernels of ours take."""
    rows = [network_row(record, records) for record in records]
    print_table(f"{NETWORK}, {IMAGE_SHAPE[2]}x{IMAGE_SHAPE[3]}", HEADINGS, rows)
    for record in records if with_kernels else ():
        kernels = record.get("kernels", {})
        total = sum(kernels.values())
        rows = [[k, f"{1e6 * s:.1f}", f"{100 * s / total:.1f}"] for k, s in kernels.items()]
        if rows:
            print_table(record["name"], ("kernel", "us", "%"), rows)


if __name__ == "__main__":
    main()
