"""Count the instructions that whole layers execute on ARM, under QEMU, beside published peers.

    python -m benchmarks.arm --json build/arm.json

A count covers everything from packed planes to packed planes: padding, products, thresholds. Where
llvm-mca is installed, cycles are estimated from LLVM's model of each core, all data in its
first-level cache; strategies are ranked by them, or else by instructions.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import relax

from tvm_bitenc.layer import ConvLayer
from tvm_bitenc.op.packed import conv_layer_of, packed_conv2d_op
from tvm_bitenc.op.registration import constant_value, is_call_to
from tvm_bitenc.schedule import strategy_costs
from tvm_bitenc.strategy import CODEBOOK, STRATEGIES
from tvm_bitenc.target import Target, load_target
from tvm_bitenc.transform.visit import visit_calls

from .emulated import EmulatedKernel, Run, missing_model, missing_tools
from .machine import this_machine
from .results import bits_name, parser, print_table, write_json
from .workloads import (
    WORKLOADS,
    WeightCodes,
    Workload,
    codeword_codes,
    layer_module,
    planes_pipeline,
    random_codes,
    random_planes,
)

LAYER = "3x3 256 @14"
PER = 128
TARGETS = ("cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n2", "armv7-neon")
DEFAULT_BITS = [(1, 1), (1, 2), (1, 4), (2, 2), (3, 3), (4, 4), (8, 8)]
HEADINGS = [
    "target",
    "bits",
    "strategy, best first",
    f"instructions / {PER} MAC",
    f"cycles / {PER} MAC",
    "cost model's",
]
# Loops of W1A1 in the assembly of 64-bit ARM kernels: instructions, and vectors of 128 products.
# Neither packing nor what follows the sums is in them.
PEERS = {
    # kernel_8x4x4_aarch64.h, 4 pixels by 8 channels: both passes of a tap of 256 channels.
    "Larq Compute Engine, loop over taps": (226, 64),
    # bconv.h, bconv_3x3_128_internal_s1: 9 taps of 128 channels for 2 pixels.
    "daBNN, 3x3 loop over output channels": (70, 18),
    # bgemm.h, micro_kernel: 8 by 6.
    "daBNN, matrix product": (200, 48),
}
PEER_HEADINGS = ["peer, loops alone", f"instructions / {PER} MAC"]


def main(arguments: Sequence[str] | None = None) -> list[dict]:
    """Count, print and write what the command line asks for; return the records."""
    options = _parser().parse_args(arguments)
    workload = next((w for w in WORKLOADS if w.name == options.layer), None)
    if workload is None:
        raise SystemExit(f"No such layer. They are: {', '.join(w.name for w in WORKLOADS)}")
    codes_of = codeword_codes(options.codewords) if options.codewords else random_codes
    strategies = STRATEGIES if options.strategy == "auto" else (options.strategy,)
    records = []
    for name in options.targets:
        target = load_target(name, threads=1)
        if reason := missing_tools(target):
            raise SystemExit(reason)
        if reason := missing_model(target):
            print(f"{target.name}: no cycles, for {reason}")
        for pair in options.bits:
            print(f"running {workload.name} {bits_name(pair)} on {target.name}", flush=True)
            records += ranked(workload, pair, target, strategies, codes_of)
    print_table(f"whole layer {workload.name}; * is what auto takes", HEADINGS, rows_of(records))
    print_table("published kernels, W1A1, 64-bit ARM", PEER_HEADINGS, peer_rows())
    write_json(options.json, this_machine(), "benchmarks.arm", layer=workload.name, arm=records)
    return records


def _parser():
    made = parser("Count instructions of layers on ARM.", DEFAULT_BITS)
    made.add_argument(
        "--targets", nargs="+", default=list(TARGETS), help="names from targets/ or TOML files"
    )
    made.add_argument("--layer", default=LAYER, help=f"default {LAYER!r}")
    made.add_argument(
        "--codewords", type=int, metavar="N", help="weights whose kernels are N different ones"
    )
    return made


def rows_of(records: Sequence[dict]) -> list[list[str]]:
    """Cells of `HEADINGS`."""
    return [
        [
            record["target"],
            record["bits"],
            record["strategy"] + (" *" if record["auto"] else ""),
            *("-" if record[key] is None else f"{record[key]:.2f}" for key in NUMBERS),
        ]
        for record in records
    ]


NUMBERS = ("instructions", "cycles", "cost")


def peer_rows() -> list[list[str]]:
    """Cells of `PEER_HEADINGS`."""
    return [[name, f"{count / vectors:.2f}"] for name, (count, vectors) in PEERS.items()]


def ranked(
    workload: Workload,
    bits: tuple[int, int],
    target: Target,
    strategies: Sequence[str],
    codes_of: WeightCodes = random_codes,
) -> list[dict]:
    """Records of a layer under each strategy, the fastest first."""
    costs = strategy_costs(layer_of(workload, bits, target, codes_of), target)
    if CODEBOOK in costs:
        strategies = (*strategies, CODEBOOK)
    chosen = min(costs, key=costs.get)
    has_cycles = missing_model(target) is None
    records = []
    for strategy in strategies:
        run = run_layer(workload, bits, target, strategy, has_cycles, codes_of)
        counts = (run.instructions, run.cycles, costs[strategy])
        each = [None if count is None else count * PER / workload.macs for count in counts]
        record = {"target": target.name, "bits": bits_name(bits), "strategy": strategy}
        records.append({**record, **dict(zip(NUMBERS, each)), "auto": strategy == chosen})
    key = "cycles" if has_cycles else "instructions"
    return sorted(records, key=lambda record: record[key])


def layer_of(
    workload: Workload,
    bits: tuple[int, int],
    target: Target,
    codes_of: WeightCodes = random_codes,
) -> ConvLayer:
    """The layer of `layer_module`, as cost models see it."""
    found = []

    def look(call: relax.Call, _graph) -> None:
        if is_call_to(call, packed_conv2d_op):
            found.append(conv_layer_of(call))

    passes = planes_pipeline(target, "auto").until("bitenc.Strategy")
    visit_calls(passes.run(layer_module(workload, *bits, codes_of=codes_of)), look)
    return found[0]


def run_layer(
    workload: Workload,
    bits: tuple[int, int],
    target: Target,
    strategy: str,
    with_cycles: bool = False,
    codes_of: WeightCodes = random_codes,
) -> Run:
    """Run a layer of `layer_module` on random planes."""
    mod = planes_pipeline(target, strategy).run(layer_module(workload, *bits, codes_of=codes_of))
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
