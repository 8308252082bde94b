"""Records for ARM cores without any board: fewest executed instructions, counted under QEMU.

    python -m benchmarks.tune_arm --targets cortex-a72 --database build/arm.jsonl

A count says nothing of how long an instruction takes; records made by it are marked as such. Other
strategies than the default's aren't tried: their instructions differ in more than their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tvm_bitenc.records.file import Journal, Record, merged, read_lines, write_lines
from tvm_bitenc.target import Target, load_target
from tvm_bitenc.tuning.measure import Job, random_input
from tvm_bitenc.tuning.task import DEFAULT, Candidate, Task, distance, tasks_of

from .emulated import EmulatedKernel, Run, missing_tools
from .results import bits_name, parser, print_table
from .tune import DEFAULT_BITS, LAYERS, layers_module
from .workloads import planes_pipeline

TARGETS = ("cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n2")
DEFAULT_LAYERS = ("3x3 128 @28", "3x3 256 @14", "3x3 512 @7")
CANDIDATES = 8
LEAST = 1.01  # Fewer instructions by less aren't worth a record.


def main(arguments: Sequence[str] | None = None) -> list[Record]:
    """Count, record and print; return the records."""
    options = _parser().parse_args(arguments)
    workloads = [w for w in LAYERS if any(part in w.name for part in options.layers)]
    journal, rows, records = Journal(options.database), [], []
    for name in options.targets:
        target = load_target(name, threads=1)
        if reason := missing_tools(target):
            raise SystemExit(reason)
        for pair in options.bits:
            for task in tasks_of(layers_module(workloads, pair), target, planes_pipeline):
                record, counts = fewest(task, target, options.candidates)
                if record is not None:
                    journal.append(record)
                    records.append(record)
                best = min(counts.values())
                gain = counts[DEFAULT] / best
                cells = [f"{counts[DEFAULT]:,}", f"{best:,}", f"{gain:.3f}"]
                rows.append([f"{name} {bits_name(pair)} {task.name}", *cells])
                print(*rows[-1], flush=True)
    journal.close()
    write_lines(merged(read_lines(options.database)), options.database)
    print_table("instructions", ["layer", "default", "fewest", "ratio"], rows)
    return records


def _parser():
    made = parser("Records for ARM by instruction count.", DEFAULT_BITS)
    made.add_argument("--targets", nargs="+", default=list(TARGETS), help="names of targets")
    made.add_argument("--layers", nargs="+", default=list(DEFAULT_LAYERS), metavar="TEXT")
    made.add_argument("--candidates", type=int, default=CANDIDATES, help="per layer; default 8")
    made.add_argument("--database", type=Path, required=True, help="file to add records to")
    return made


def fewest(task: Task, target: Target, count: int) -> tuple[Record | None, dict[Candidate, int]]:
    """Count the instructions of the default and of candidates near it.

    Raises
    ------
    AssertionError
        If a candidate gives other bits than the default.
    """
    alike = [c for c in task.candidates if c[0] == task.default_strategy]
    near = sorted(alike, key=lambda candidate: distance(task, candidate))
    default, counts = run(task, target, DEFAULT), {}
    counts[DEFAULT] = default.instructions
    for candidate in near:
        if len(counts) > count:
            break
        if task.kernel(candidate) is None:
            continue
        found = run(task, target, candidate)
        assert np.array_equal(found.output, default.output), candidate
        counts[candidate] = found.instructions
    best = min(counts, key=counts.get)
    speedup = round(counts[DEFAULT] / counts[best], 4)
    if speedup < LEAST:
        return None, counts
    named = dict(strategy=best[0], tile=best[1], speedup=speedup, by="instructions")
    return Record(**task.keys, **named), counts


def run(task: Task, target: Target, candidate: Candidate) -> Run:
    """Run a candidate on random input under QEMU."""
    kernel, rng = task.kernel(candidate), np.random.default_rng(0)
    job = Job("", "", task.shapes, task.layer.act_bits, task.channels)
    inputs = [random_input(job, shape, dtype, rng) for shape, dtype in task.shapes[:-1]]
    return EmulatedKernel(kernel.function, target).run(
        [*inputs, *kernel.constants], *task.shapes[-1]
    )


if __name__ == "__main__":
    main()
