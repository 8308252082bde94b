"""Tune ResNet-18's layers, and measure what it brought: against the default, and a plain loop nest.

    python -m benchmarks.tune --bits 1,1 2,2 --trials 64 --database build/tuned.jsonl

`--plain int8` starts from a plain loop nest with a vectorized inner loop instead of the default,
over integer products or over words of bits;
`--curves FILE.png` draws the best so far against trials, with a cold cost model and a warm one.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import tvm
from tvm import relax, s_tir

from tvm_bitenc.op.packed import (
    conv_layer_of,
    packed_conv2d_op,
    takes_codes,
)
from tvm_bitenc.op.registration import is_call_to
from tvm_bitenc.records.file import Trial, read_lines, records_for
from tvm_bitenc.schedule import Kernel, RuleSet
from tvm_bitenc.target import Target, load_target
from tvm_bitenc.te.function import prim_func
from tvm_bitenc.te.layer_kernels import int8_kernel, xnor_kernel
from tvm_bitenc.tuning.api import DEFAULT_TRIALS, NEAR_LIMIT, tune
from tvm_bitenc.tuning.artifact import Artifact
from tvm_bitenc.tuning.builder import BuilderPool, Workshop
from tvm_bitenc.tuning.compare import comparison
from tvm_bitenc.tuning.devices import device_for
from tvm_bitenc.tuning.measure import Times
from tvm_bitenc.tuning.result import LayerResult
from tvm_bitenc.tuning.task import DEFAULT, Task, tasks_of

from .machine import this_machine
from .results import (
    Bits,
    bits_name,
    geometric_mean,
    parser,
    print_machine,
    print_table,
    write_json,
)
from .workloads import (
    WORKLOADS,
    WeightCodes,
    Workload,
    conv1x1,
    emit_layer,
    planes_pipeline,
    planes_variable,
    random_codes,
)

LAYERS = [w for w in WORKLOADS if w.kind == "3x3"]
LAYERS += [conv1x1(c, 2 * c, size, 2) for c, size in ((64, 56), (128, 28), (256, 14))]
# Layers that no shipped record is of: what others taught must serve them.
UNSEEN = [
    Workload("3x3 96 @20", "3x3", 96, 96, 20, 3, 1, 1),
    Workload("3x3 192 @12", "3x3", 192, 192, 12, 3, 1, 1),
    conv1x1(192, 192, 14),
]
DEFAULT_BITS = [(1, 1), (2, 2)]
PLAIN_LANES = 8
HEADINGS = ("layer", "bits", "trials", "strategy", "GMAC/s", "% of limit", "x default")


def main(arguments: Sequence[str] | None = None) -> list[dict]:
    """Tune, measure and print what the command line asks for; return the records."""
    options = _parser().parse_args(arguments)
    chosen = [w for w in LAYERS if any(part in w.name for part in options.layers)]
    machine, target = this_machine(), load_target(options.target, options.threads)
    if options.plain:
        target = replace(target, rules=(PLAIN[options.plain], *target.rules))
    print_machine(machine, options.threads)
    if options.curves:
        return draw_curves(UNSEEN, options, target)
    records = []
    for pair in options.bits:
        records += measure(chosen, pair, options, target)
    print_records(records)
    write_json(options.json, machine, "benchmarks.tune", layers=records)
    return records


def _parser():
    made = parser("Tune ResNet-18's layers, planes to planes.", DEFAULT_BITS)
    made.add_argument("--layers", nargs="+", default=[""], metavar="TEXT", help="parts of names")
    made.add_argument("--trials", type=int, default=DEFAULT_TRIALS, help="per layer; default 64")
    made.add_argument("--database", type=Path, help="file of records to go on with")
    made.add_argument("--near-limit", type=float, default=NEAR_LIMIT, help="leave a layer alone")
    made.add_argument("--cold", action="store_true", help="don't learn from shipped records")
    made.add_argument("--plain", choices=("xnor", "int8"), help="start from a plain loop nest")
    made.add_argument("--curves", type=Path, metavar="PNG", help="draw warm and cold runs")
    return made


def measure(workloads: Sequence[Workload], pair: Bits, options, target: Target) -> list[dict]:
    """Tune layers at some bits, then compare what `build` would take with the default."""
    module = layers_module(workloads, pair)
    with tempfile.TemporaryDirectory() as folder:
        database = options.database or Path(folder) / "records.jsonl"
        start = time.perf_counter()
        results = tune(
            module,
            target,
            options.trials,
            database,
            threads=options.threads,
            warm_start=not options.cold,
            near_limit=options.near_limit,
            pipeline=planes_pipeline,
        )
        seconds = time.perf_counter() - start
        ratios = final_ratios(tasks_of(module, target, planes_pipeline), database, target)
    trials = sum(result.trials for result in results)
    print(f"{bits_name(pair)}: {trials} trials in the file, {seconds:.0f} s", flush=True)
    return [record_of(result, pair, ratios[result.workload]) for result in results]


def record_of(result: LayerResult, pair: Bits, ratio: float) -> dict:
    """What is printed of a layer."""
    return {
        "layer": result.name,
        "bits": bits_name(pair),
        "trials": result.trials,
        "strategy": result.strategy,
        "gmacs": result.gmacs,
        "share_of_limit": result.share_of_limit,
        "ratio": ratio,
    }


def final_ratios(tasks: Sequence[Task], database: Path, target: Target) -> dict[str, float]:
    """Speed of what `build` takes over the default's, in turns, by workload."""
    records = records_for(read_lines(database), target, str(database))
    device, pool, ratios = device_for(None, target, 60.0), BuilderPool(), {}
    try:
        workshop = Workshop(pool)
        for task in tasks:
            record = records.find(task.workload)
            candidate = (record.strategy, record.tile) if record else DEFAULT
            (artifact,) = workshop.build([(task, candidate)])
            assert isinstance(artifact, Artifact), artifact
            job = comparison(workshop.job_of(artifact.folder))
            (times,) = device.run([job], lambda number, outcome: None)
            assert isinstance(times, Times), times
            ratios[task.workload] = median(times.speedups)
    finally:
        pool.close()
        device.close()
    return ratios


def print_records(records: Sequence[dict]) -> None:
    """Print a row per layer and the means."""
    rows = [
        [
            r["layer"],
            r["bits"],
            str(r["trials"]),
            r["strategy"],
            f"{r['gmacs']:.1f}",
            f"{100 * r['share_of_limit']:.0f}" if r["share_of_limit"] else "-",
            f"{r['ratio']:.3f}",
        ]
        for r in records
    ]
    print_table("tuned layers against the default, in turns", HEADINGS, rows)
    ratios = [r["ratio"] for r in records]
    print(f"geometric mean {geometric_mean(ratios):.3f}, worst {min(ratios):.3f}")


def layers_module(
    workloads: Sequence[Workload], pair: Bits, codes_of: WeightCodes = random_codes
) -> tvm.IRModule:
    """Return a module of independent layers, from packed planes to packed planes."""
    builder, rng = relax.BlockBuilder(), np.random.default_rng(0)
    inputs = [
        planes_variable(workload, pair[1], f"planes{i}") for i, workload in enumerate(workloads)
    ]
    with builder.function("main", inputs):
        with builder.dataflow():
            outputs = [
                emit_layer(builder, x, w, *pair, rng, codes_of) for x, w in zip(inputs, workloads)
            ]
            outputs = [builder.emit(output) for output in outputs]
            result = builder.emit_output(relax.Tuple(outputs))
        builder.emit_func_output(result)
    return builder.get()


def plain_int8(call: relax.Call, _target: Target) -> Kernel | None:
    """The loops of integer products as they stand, output channels in the lanes."""
    if not is_call_to(call, packed_conv2d_op) or takes_codes(call):
        return None
    compute, constants = int8_kernel(conv_layer_of(call))
    schedule = s_tir.Schedule(prim_func(compute, [call.args[0], *constants]))
    sums = schedule.get_sblock("accumulator")
    *_, channel, c, i, j = schedule.get_loops(sums)
    _, lane = schedule.split(channel, [None, 2 * PLAIN_LANES])
    schedule.reorder(c, i, j, lane)
    schedule.vectorize(lane)
    schedule.decompose_reduction(sums, c)
    return Kernel(schedule.mod["main"], constants)


def plain_xnor(call: relax.Call, _target: Target) -> Kernel | None:
    """The definition's loops as they stand, with output channels in the lanes of the innermost."""
    if not is_call_to(call, packed_conv2d_op) or takes_codes(call):
        return None
    layer = conv_layer_of(call)
    if layer.strategy != "xnor" or layer.out_channels % PLAIN_LANES:
        return None
    compute, constants = xnor_kernel(layer, PLAIN_LANES)
    schedule = s_tir.Schedule(prim_func(compute, [call.args[0], *constants]))
    counts = schedule.get_sblock("differing")
    *_, lane, i, j, word = schedule.get_loops(counts)
    schedule.reorder(i, j, word, lane)
    schedule.vectorize(lane)
    schedule.decompose_reduction(counts, i)
    return Kernel(schedule.mod["main"], constants)


PLAIN = {
    "int8": RuleSet("plain int8", (plain_int8,)),
    "xnor": RuleSet("plain xnor", (plain_xnor,)),
}


def draw_curves(workloads: Sequence[Workload], options, target: Target) -> list[dict]:
    """Tune with a cold cost model and with one that learnt from shipped records; draw both."""
    curves = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, warm in (("cold", False), ("warm", True)):
            curves[name] = []
            for pair in options.bits:
                database = Path(folder) / f"{name}-{bits_name(pair)}.jsonl"
                tune(
                    layers_module(workloads, pair),
                    target,
                    options.trials,
                    database,
                    threads=options.threads,
                    warm_start=warm,
                    near_limit=2.0,
                    pipeline=planes_pipeline,
                )
                curves[name] += _best_so_far(database, options.trials)
    means = {
        name: [geometric_mean(column) for column in zip(*lists)] for name, lists in curves.items()
    }
    _plot(means, options.curves)
    for name, curve in means.items():
        print(name, " ".join(f"{value:.3f}" for value in curve[:: max(len(curve) // 8, 1)]))
    return [{"curve": name, "best": curve} for name, curve in means.items()]


def _best_so_far(database: Path, count: int) -> list[list[float]]:
    """Best speedup over the default after each trial but the default's, a list per workload."""
    by_workload: dict[str, list[float]] = {}
    for line in read_lines(database):
        if isinstance(line, Trial) and line.candidate != DEFAULT:
            by_workload.setdefault(line.workload, []).append(line.speedup)
    found = []
    for speedups in by_workload.values():
        best = [max(max(speedups[: i + 1]), 1e-3) for i in range(len(speedups))]
        found.append(best + [best[-1]] * (count - 1 - len(best)))
    return found


def _plot(means: dict[str, list[float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for name, curve in means.items():
        axes.plot(range(1, len(curve) + 1), curve, label=f"{name} cost model")
    axes.axhline(1.0, color="grey", linewidth=0.8)
    axes.set_xlabel("trials beside the default")
    axes.set_ylabel("best so far / default, geometric mean of layers")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
