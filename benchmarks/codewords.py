"""Time layers whose kernels are few, by each strategy.

    python -m benchmarks.codewords --bits 1,1 1,2 --codewords 16 64

Packed planes to packed planes, as `benchmarks.layers`; all strategies in turns.
"""

from __future__ import annotations

from collections.abc import Sequence

import tvm_bitenc
from tvm_bitenc.compiled import CompiledModel
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.strategy import ALL_STRATEGIES, AUTO, CODEBOOK

from .machine import this_machine
from .results import Bits, bits_name, parser, print_machine, print_table, write_json
from .timing import fastest
from .workloads import (
    WORKLOADS,
    Workload,
    codeword_codes,
    layer_module,
    library_run,
    planes_pipeline,
    random_planes,
)

DEFAULT_BITS = [(1, 1), (1, 2), (2, 2)]
DEFAULT_CODEWORDS = [16, 32, 64]
DEFAULT_LAYERS = [w.name for w in WORKLOADS if w.kind == "3x3"]
HEADINGS = ("layer", "bits", "codewords", *ALL_STRATEGIES, "chosen", "times others", "bits/weight")


def main(arguments: Sequence[str] | None = None) -> list[dict]:
    """Measure, print and write what the command line asks for; return the records."""
    options = _parser().parse_args(arguments)
    chosen = [w for w in WORKLOADS if w.kind == "3x3" and w.name in options.layers]
    if len(chosen) < len(options.layers):
        raise SystemExit(f"Layers are: {', '.join(DEFAULT_LAYERS)}")
    if min(options.codewords) < 1:
        raise SystemExit("A layer has at least one codeword")
    machine = this_machine()
    print_machine(machine, options.threads)
    records = [
        measure(workload, pair, codewords, options)
        for workload in chosen
        for pair in options.bits
        for codewords in options.codewords
    ]
    print_table("layers of few kernels, us", HEADINGS, map(row_of, records))
    content = dict(threads=options.threads, codewords=records)
    write_json(options.json, machine, "benchmarks.codewords", **content)
    return records


def _parser():
    made = parser("Time layers whose kernels are few.", DEFAULT_BITS)
    made.add_argument(
        "--codewords", nargs="+", type=int, default=DEFAULT_CODEWORDS, metavar="N", help="how many"
    )
    made.add_argument(
        "--layers", nargs="+", default=DEFAULT_LAYERS, metavar="NAME", help="names of layers"
    )
    made.add_argument(
        "--seconds", type=float, default=0.3, help="budget per layer and strategy; default 0.3"
    )
    return made


def measure(workload: Workload, pair: Bits, codewords: int, options) -> dict:
    """Time a layer by every strategy that the target has for it."""
    planes = random_planes(workload, pair[1])
    module = layer_module(workload, *pair, codes_of=codeword_codes(codewords))
    libraries: dict[str, CompiledModel] = {}
    for strategy in ALL_STRATEGIES:
        try:
            libraries[strategy] = _library(module, strategy, options)
        except UnsupportedError:
            if strategy != CODEBOOK:
                raise
    runs = {strategy: library_run(library, planes) for strategy, library in libraries.items()}
    seconds = fastest(runs, options.seconds * len(runs), options.threads)
    others = min(value for strategy, value in seconds.items() if strategy != CODEBOOK)
    rows = {strategy: library.report().layers[0] for strategy, library in libraries.items()}
    has_codebook = CODEBOOK in seconds
    return {
        "layer": workload.name,
        "bits": bits_name(pair),
        "codewords": codewords,
        "seconds": seconds,
        "chosen": _library(module, AUTO, options).report().layers[0].strategy,
        "speedup": others / seconds[CODEBOOK] if has_codebook else None,
        "bits_per_weight": rows[CODEBOOK].bits_per_weight if has_codebook else None,
    }


def _library(module, strategy: str, options) -> CompiledModel:
    return tvm_bitenc.build(
        module, options.target, strategy, options.threads, pipeline=planes_pipeline
    )


def row_of(record: dict) -> tuple[str, ...]:
    """Cells of a record, as `HEADINGS` names them."""
    seconds = record["seconds"]
    numbers = (record["speedup"], record["bits_per_weight"])
    return (
        record["layer"],
        record["bits"],
        str(record["codewords"]),
        *(f"{seconds[s] * 1e6:.1f}" if s in seconds else "-" for s in ALL_STRATEGIES),
        record["chosen"],
        *("-" if number is None else f"{number:.2f}" for number in numbers),
    )


if __name__ == "__main__":
    main()
