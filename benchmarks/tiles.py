"""Time layers whose weights are copies of tiles, beside the same layers of plain weights.

    python -m benchmarks.tiles --bits 1,1 1,2 --tiles 4 8
    python -m benchmarks.tiles --shuffled           # channels in any order

Packed planes to packed planes, as `benchmarks.layers`; each strategy is the one that is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

import tvm_bitenc
from tvm_bitenc.compiled import CompiledModel

from .machine import this_machine
from .results import Bits, bits_name, parser, print_machine, print_table, write_json
from .timing import fastest
from .workloads import (
    WORKLOADS,
    Workload,
    layer_module,
    library_run,
    planes_pipeline,
    random_planes,
    tiled_codes,
)

DEFAULT_BITS = [(1, 1), (1, 2)]
DEFAULT_TILES = [2, 4, 8]
DEFAULT_LAYERS = ["3x3 128 @28", "3x3 256 @14"]
HEADINGS = ("layer", "bits", "tiles", "strategy", "us", "times plain", "bytes", "of plain")


def main(arguments: Sequence[str] | None = None) -> list[dict]:
    """Measure, print and write what the command line asks for; return the records."""
    options = _parser().parse_args(arguments)
    chosen = [w for w in WORKLOADS if w.name in options.layers]
    if len(chosen) < len(options.layers):
        raise SystemExit(f"Layers are: {', '.join(w.name for w in WORKLOADS)}")
    machine, records = this_machine(), []
    print_machine(machine, options.threads)
    for workload in chosen:
        for pair in options.bits:
            records += measure(workload, pair, options)
    print_table("layers made of tiles", HEADINGS, map(row_of, records))
    write_json(options.json, machine, "benchmarks.tiles", threads=options.threads, tiles=records)
    return records


def _parser():
    made = parser("Time layers whose weights are copies of tiles.", DEFAULT_BITS)
    made.add_argument(
        "--tiles", nargs="+", type=int, default=DEFAULT_TILES, metavar="P", help="default 2 4 8"
    )
    made.add_argument("--shuffled", action="store_true", help="output channels in any order")
    made.add_argument(
        "--layers", nargs="+", default=DEFAULT_LAYERS, metavar="NAME", help="names of layers"
    )
    made.add_argument(
        "--seconds", type=float, default=0.3, help="budget per layer and contender; default 0.3"
    )
    return made


def measure(workload: Workload, pair: Bits, options) -> list[dict]:
    """Time a layer with one tile, which is a plain one, and with several, in turns."""
    planes = random_planes(workload, pair[1])
    libraries = {tiles: _library(workload, pair, tiles, options) for tiles in (1, *options.tiles)}
    runs = {tiles: library_run(library, planes) for tiles, library in libraries.items()}
    seconds = fastest(runs, options.seconds * len(runs), options.threads)
    rows = {tiles: library.report().layers[0] for tiles, library in libraries.items()}
    return [
        {
            "layer": workload.name,
            "bits": bits_name(pair),
            "tiles": tiles,
            "strategy": rows[tiles].strategy,
            "seconds": seconds[tiles],
            "speedup": seconds[1] / seconds[tiles],
            "stored_bytes": rows[tiles].stored_bytes,
            "stored_share": rows[tiles].stored_bytes / rows[1].stored_bytes,
        }
        for tiles in libraries
    ]


def _library(workload: Workload, pair: Bits, tiles: int, options) -> CompiledModel:
    if tiles < 1 or workload.out_channels % tiles:
        raise SystemExit(f"{tiles} tiles don't divide the {workload.out_channels} channels")
    codes_of = tiled_codes(tiles, options.shuffled)
    module = layer_module(workload, *pair, codes_of=codes_of)
    return tvm_bitenc.build(
        module, options.target, options.strategy, options.threads, pipeline=planes_pipeline
    )


def row_of(record: dict) -> tuple[str, ...]:
    """Cells of a record, as `HEADINGS` names them."""
    return (
        record["layer"],
        record["bits"],
        str(record["tiles"]),
        record["strategy"],
        f"{record['seconds'] * 1e6:.1f}",
        f"{record['speedup']:.2f}",
        f"{record['stored_bytes']:,}",
        f"{record['stored_share']:.3f}",
    )


if __name__ == "__main__":
    main()
