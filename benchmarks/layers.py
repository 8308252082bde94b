"""Time single layers from packed planes to packed planes beside ONNX Runtime, OpenVINO and torch.

    python -m benchmarks.layers --bits 1,1 2,2

Each contender is timed by whole calls: the virtual machine's own cost and ONNX Runtime's count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

import tvm_bitenc
from tvm_bitenc.compiled import CompiledModel
from tvm_bitenc.errors import BitencError
from tvm_bitenc.limits import limits
from tvm_bitenc.strategy import STRATEGIES
from tvm_bitenc.target import load_target

from .machine import Machine, this_machine
from .peers import layer_peers
from .results import (
    BEST_INT8,
    INT8_PEERS,
    OURS,
    PEERS,
    Bits,
    bits_name,
    geometric_mean,
    parser,
    print_machine,
    print_table,
    write_json,
)
from .timing import fastest
from .workloads import (
    WORKLOADS,
    Workload,
    layer_module,
    library_run,
    planes_pipeline,
    random_planes,
)

DEFAULT_BITS = [(1, 1), (1, 2), (2, 2), (3, 3), (4, 4), (8, 8)]
MEAN_KIND = "3x3"  # The kind of layers whose geometric mean counts.


def main(arguments: Sequence[str] | None = None) -> list[dict]:
    """Measure, print and write what the command line asks for; return the records."""
    options = _parser().parse_args(arguments)
    chosen = [w for w in WORKLOADS if any(part in w.name for part in options.layers)]
    if not chosen:
        raise SystemExit(f"No layer matches. They are: {', '.join(w.name for w in WORKLOADS)}")
    machine = this_machine()
    print_machine(machine, options.threads)
    records = []
    for workload in chosen:
        print(f"measuring {workload.name}", flush=True)
        records += measure(workload, machine, options)
    print_records(records, options.strategies)
    write_json(options.json, machine, "benchmarks.layers", threads=options.threads, layers=records)
    return records


def _parser():
    made = parser("Time single layers, packed planes to packed planes.", DEFAULT_BITS)
    made.add_argument(
        "--layers",
        nargs="+",
        default=[""],
        metavar="TEXT",
        help="only layers whose name contains one of these; default all",
    )
    made.add_argument(
        "--strategies", action="store_true", help="time every strategy beside the chosen one"
    )
    made.add_argument(
        "--seconds", type=float, default=0.3, help="budget per layer and contender; default 0.3"
    )
    return made


def measure(workload: Workload, machine: Machine, options) -> list[dict]:
    """Time a layer at all bits, and its peers, in turns; one record per pair of bits."""
    contenders: dict[object, Callable] = dict(layer_peers(workload, options.threads))
    chosen: dict[Bits, str] = {}
    for pair in options.bits:
        runs, chosen[pair] = _our_runs(workload, pair, options)
        contenders |= {(pair, strategy): run for strategy, run in runs.items()}
    seconds = fastest(contenders, options.seconds * len(contenders), options.threads)
    return [
        {
            "layer": workload.name,
            "kind": workload.kind,
            "bits": bits_name(pair),
            "macs": workload.macs,
            "strategy": chosen[pair],
            "seconds": {OURS: seconds[pair, chosen[pair]]} | {p: seconds[p] for p in PEERS},
            "strategy_seconds": {s: seconds[pair, s] for s in STRATEGIES if (pair, s) in seconds},
            "limits": _limits(workload, pair, machine, options),
        }
        for pair in options.bits
    ]


def _limits(workload: Workload, pair: Bits, machine: Machine, options) -> dict[str, float]:
    """GMAC/s by strategy; of depthwise layers, which sum nothing over channels, none is counted."""
    if workload.groups > 1:
        return {}
    return limits(load_target(options.target), *pair, machine.clock_ghz, options.threads)


def _our_runs(workload: Workload, pair: Bits, options) -> tuple[dict[str, Callable], str]:
    """Runs by strategy, and the strategy that was asked for or chosen.

    Raises
    ------
    AssertionError
        If two strategies disagree in any bit.
    """
    module, planes = layer_module(workload, *pair), random_planes(workload, pair[1])

    def build(strategy: str) -> CompiledModel:
        return tvm_bitenc.build(
            module, options.target, strategy, options.threads, pipeline=planes_pipeline
        )

    library = build(options.strategy)
    chosen, result = library.report().layers[0].strategy, library(planes)
    runs = {chosen: library_run(library, planes)}
    for strategy in set(STRATEGIES) - {chosen} if options.strategies else ():
        try:
            other = build(strategy)
        except BitencError:  # This strategy doesn't take this layer.
            continue
        assert np.array_equal(other(planes), result), f"{strategy} and {chosen} disagree"
        runs[strategy] = library_run(other, planes)
    return runs, chosen


def print_records(records: Sequence[dict], with_strategies: bool = False) -> None:
    """Print a table per pair of bits, then the means."""
    for pair in dict.fromkeys(record["bits"] for record in records):
        rows = [layer_row(record) for record in records if record["bits"] == pair]
        print_table(f"{pair}, GMAC/s and ratios to the peers", LAYER_HEADINGS, rows)
    print_table(f"geometric mean of the {MEAN_KIND} layers", MEAN_HEADINGS, mean_rows(records))
    if with_strategies:
        _print_strategies(records)


RIVALS = (*PEERS, BEST_INT8)
LAYER_HEADINGS = (
    "layer",
    "strategy",
    "GMAC/s",
    "% of limit",
    *PEERS,
    *(f"x {rival}" for rival in RIVALS),
)
MEAN_HEADINGS = ("bits", "layers", "GMAC/s", *(f"x {rival}" for rival in RIVALS), "% of limit")


def layer_row(record: dict) -> list[str]:
    """Cells of `LAYER_HEADINGS`."""
    speed = {name: record["macs"] / s / 1e9 for name, s in record["seconds"].items()}
    return [
        record["layer"],
        record["strategy"],
        f"{speed[OURS]:.1f}",
        _text(_percent_of_limit(record)),
        *(f"{speed[peer]:.1f}" for peer in PEERS),
        *(f"{_speedup(record, rival):.2f}" for rival in RIVALS),
    ]


def _speedup(record: dict, rival: str) -> float:
    """How many times as fast as one of `RIVALS`."""
    seconds = record["seconds"]
    rivals = INT8_PEERS if rival == BEST_INT8 else [rival]
    return min(seconds[peer] for peer in rivals) / seconds[OURS]


def mean_rows(records: Sequence[dict]) -> list[list[str]]:
    """Cells of `MEAN_HEADINGS`, a row per pair of bits."""
    rows = []
    for pair in dict.fromkeys(record["bits"] for record in records):
        mine = [r for r in records if r["bits"] == pair and r["kind"] == MEAN_KIND]
        speed = geometric_mean(r["macs"] / r["seconds"][OURS] / 1e9 for r in mine)
        ratios = [geometric_mean(_speedup(r, rival) for r in mine) for rival in RIVALS]
        limit = geometric_mean(map(_percent_of_limit, mine))
        cells = [f"{speed:.1f}", *(f"{ratio:.2f}" for ratio in ratios), _text(limit)]
        rows.append([pair, str(len(mine)), *cells])
    return rows


def _percent_of_limit(record: dict) -> float:
    """Speed in per cent of what the strategy that ran can reach; nan where that isn't known."""
    limit = record["limits"].get(record["strategy"], float("nan"))
    return 100 * record["macs"] / record["seconds"][OURS] / 1e9 / limit


def _text(percent: float) -> str:
    return "-" if math.isnan(percent) else f"{percent:.0f}"


def _print_strategies(records: Sequence[dict]) -> None:
    rows = []
    for record in records:
        seconds = record["strategy_seconds"]
        best = min(seconds, key=seconds.get)
        lost = seconds[record["strategy"]] / seconds[best] - 1
        verdict = "right" if best == record["strategy"] else f"loses {100 * lost:.0f} %"
        speeds = [
            f"{record['macs'] / seconds[s] / 1e9:.1f}" if s in seconds else "-" for s in STRATEGIES
        ]
        rows.append([f"{record['bits']} {record['layer']}", *speeds, record["strategy"], verdict])
    headings = ["layer", *STRATEGIES, "chosen", "choice"]
    print_table("strategies, GMAC/s", headings, rows)


if __name__ == "__main__":
    main()
