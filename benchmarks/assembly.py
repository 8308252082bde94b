"""Count the instructions of kernels' inner loops, for any instruction set, on any machine.

    python -m benchmarks.assembly

A kernel is compiled for the instruction set, not run. Its hottest loop is the innermost one with
most of the instructions that do the products; all its instructions count, loads and control too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import tvm

from tvm_bitenc.branches import outer
from tvm_bitenc.kernel.product.branch_cover import cover
from tvm_bitenc.target import load_target

from .machine import this_machine
from .results import bits_name, parser, print_table, write_json
from .workloads import WORKLOADS, Workload, layer_module, planes_pipeline

LAYER = "3x3 256 @14"
PER = 512  # Products that instructions are counted for.


@dataclass(frozen=True)
class Product:
    """An instruction that stands for a number of products, of one count or of codes.

    Parameters
    ----------
    mnemonic : str
    products : int
        With 1-bit weights and activations.
    divided_by : str
        The number of ``"counts"``, or of bits of the ``"weight"``, or ``"none"``.
    """

    mnemonic: str
    products: int
    divided_by: str


PRODUCTS = {
    ("znver5", "xnor"): Product("vpopcntq", 512, "counts"),
    ("znver5", "lut"): Product("vpermb", 384, "weight"),
    ("znver5", "int8"): Product("vpdpbusd", 64, "none"),
    ("x86-64-v4", "lut"): Product("vpshufb", 256, "weight"),
    # Two byte shuffles count the bits of one vector.
    ("x86-64-v3", "xnor"): Product("vpshufb", 128, "counts"),
    ("x86-64-v3", "lut"): Product("vpshufb", 128, "weight"),
    ("x86-64-v3", "int8"): Product("vpmaddubsw", 32, "none"),
}
DEFAULT_BITS = [(1, 1), (1, 2), (2, 2), (3, 3), (4, 4)]


def main(arguments: Sequence[str] | None = None) -> list[dict]:
    """Count, print and write what the command line asks for; return the records."""
    options = parser("Count instructions of inner loops.", DEFAULT_BITS).parse_args(arguments)
    workload = next(w for w in WORKLOADS if w.name == LAYER)
    records = [
        {
            "target": target,
            "strategy": strategy,
            "bits": bits_name(pair),
            "instructions": instructions(workload, pair, target, strategy),
        }
        for target, strategy in PRODUCTS
        for pair in options.bits
    ]
    print_table(f"inner loops of {LAYER}", HEADINGS, rows_of(records))
    write_json(options.json, this_machine(), "benchmarks.assembly", loops=records)
    return records


HEADINGS = ["target and strategy", "bits", f"instructions per {PER} products"]


def rows_of(records: Sequence[dict]) -> list[list[str]]:
    """Cells of `HEADINGS`."""
    return [
        [f"{r['target']} {r['strategy']}", r["bits"], f"{r['instructions']:.2f}"] for r in records
    ]


def instructions(workload: Workload, bits: tuple[int, int], target: str, strategy: str) -> float:
    """Instructions of the hottest loop per `PER` products."""
    product = PRODUCTS[target, strategy]
    loop = hottest_loop(assembly(workload, bits, target, strategy), product.mnemonic)
    done = sum(line.startswith(product.mnemonic) for line in loop)
    divisor = {"counts": counts(*bits), "weight": bits[0], "none": 1}[product.divided_by]
    return len(loop) / (done * product.products / divisor) * PER


def counts(weight_bits: int, act_bits: int) -> int:
    """How many vectors of bits are counted for all branches of as many products."""
    sides = ([2**bit for bit in range(bits)] for bits in (weight_bits, act_bits))
    return sum(len(count.factors) for count in cover(outer(*sides)))


def assembly(workload: Workload, bits: tuple[int, int], target: str, strategy: str) -> str:
    """Assembly of a layer's kernel."""
    machine = load_target(target, threads=1)
    mod = planes_pipeline(machine, strategy).run(layer_module(workload, *bits))
    (kernel,) = [f for v, f in mod.functions_items() if "packed_conv2d" in v.name_hint]
    function = kernel.with_attr("global_symbol", "main")
    library = tvm.compile(tvm.IRModule({"main": function}), target=machine.tvm_target)
    return library.mod.inspect_source("asm")


def hottest_loop(text: str, mnemonic: str) -> list[str]:
    """Instructions of the innermost loop that has most of one instruction."""
    lines, labels, loops = [], {}, []
    for line in map(str.strip, text.splitlines()):
        label = re.match(r"(\.LBB\w+):", line)
        if label:
            labels[label[1]] = len(lines)
        elif line and not line.startswith((".", "#")) and not line.endswith(":"):
            lines.append(line)
            jump = re.match(r"j\w+\s+(\.LBB\w+)", line)
            if jump and jump[1] in labels:  # A jump back ends a loop.
                loops.append((labels[jump[1]], len(lines)))
    innermost = [
        (start, end)
        for start, end in loops
        if not any(start <= s and e < end for s, e in loops if (s, e) != (start, end))
    ]
    bodies = [lines[start:end] for start, end in innermost]
    return max(bodies, key=lambda body: sum(line.startswith(mnemonic) for line in body))


# Kinds of `schedule.work.Work`, by how a mnemonic starts; the first that fits.
KINDS = (
    ("vpopcnt", "count"),
    ("vpshufb", "lookup"),
    ("vpermb", "lookup"),
    ("vpdpbusd", "product"),
    ("vpmaddubsw", "product"),
    ("vpmaddwd", "product"),
    ("vmov", "other"),
    ("v", "vector"),
)


def kind_of(line: str) -> str:
    """Kind of an instruction; what repeats a number from memory is a load."""
    if line.startswith("vpbroadcast") and "(" in line:
        return "other"
    return next((kind for start, kind in KINDS if line.startswith(start)), "other")


if __name__ == "__main__":
    main()
