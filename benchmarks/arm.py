"""Count the instructions that whole layers execute on ARM, under QEMU, beside published peers.

    python -m benchmarks.arm

A count covers everything from packed planes to packed planes: padding, products, thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import relax

from tvm_bitenc.op.registration import constant_value
from tvm_bitenc.target import Target, load_target
from tvm_bitenc.transform.strategy import STRATEGIES

from .emulated import EmulatedKernel, Run, missing_tools
from .machine import this_machine
from .results import bits_name, parser, print_table, write_json
from .workloads import WORKLOADS, Workload, layer_module, planes_pipeline, random_planes

LAYER = "3x3 256 @14"
PER = 128
TARGETS = ("cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n2", "armv7-neon")
DEFAULT_BITS = [(1, 1), (1, 2), (2, 2), (4, 4), (8, 8)]
# Inner loop alone, W1A1 on 64-bit ARM: what its assembly has.
PEERS = {"Larq Compute Engine, inner loop": 3.64}
HEADINGS = ["target and strategy", "bits", f"instructions per {PER} MAC"]


def main(arguments: Sequence[str] | None = None) -> list[dict]:
    """Count, print and write what the command line asks for; return the records."""
    options = parser("Count instructions of layers on ARM.", DEFAULT_BITS)
    options.add_argument("--targets", nargs="+", default=list(TARGETS), help="names of targets")
    options = options.parse_args(arguments)
    workload = next(w for w in WORKLOADS if w.name == LAYER)
    strategies = STRATEGIES if options.strategy == "auto" else (options.strategy,)
    records = []
    for name in options.targets:
        target = load_target(name, threads=1)
        if reason := missing_tools(target):
            raise SystemExit(reason)
        for pair in options.bits:
            records += ranked(workload, pair, target, strategies)
    rows = [[f"{r['target']} {r['strategy']}", r["bits"], f"{r['count']:.2f}"] for r in records]
    rows += [[name, "W1A1", f"{count:.2f}"] for name, count in PEERS.items()]
    print_table(f"whole layer {LAYER}, best first", HEADINGS, rows)
    write_json(options.json, this_machine(), "benchmarks.arm", layers=records)
    return records


def ranked(workload: Workload, bits: tuple[int, int], target: Target, strategies) -> list[dict]:
    """Records of a layer under each strategy, the fewest instructions first."""
    records = [
        {
            "target": target.name,
            "strategy": strategy,
            "bits": bits_name(bits),
            "count": run_layer(workload, bits, target, strategy).instructions
            / (workload.macs / PER),
        }
        for strategy in strategies
    ]
    return sorted(records, key=lambda record: record["count"])


def run_layer(
    workload: Workload,
    bits: tuple[int, int],
    target: Target,
    strategy: str,
    with_cycles: bool = False,
) -> Run:
    """Run a layer of `layer_module` on random planes."""
    mod = planes_pipeline(target, strategy).run(layer_module(workload, *bits))
    call = kernel_call(mod)
    tensors = [constant_value(value) for value in call.args[1].fields[1:]]
    kernel = EmulatedKernel(mod[call.args[0]], target)
    shape = tuple(int(size) for size in call.ty.shape)
    inputs = [random_planes(workload, bits[1]), *tensors]
    return kernel.run(inputs, shape, str(call.ty.dtype), with_cycles)


def kernel_call(mod) -> relax.Call:
    """The first call of a module's `main`."""
    return mod["main"].body.blocks[0].bindings[0].value


if __name__ == "__main__":
    main()
