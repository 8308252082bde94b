"""How fast a layer could be: what the vector instructions of a core allow, times its clock."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import tvm
from tvm.script import tirx as T

from .host import host_features
from .kernel.product.branch_cover import cover, operations
from .target import native_target

VPOPCNT_VNNI = "avx512 vpopcntdq+vnni"
AVX2 = "avx2"
LINKS, CYCLES_PER_LINK = 1 << 16, 2  # Of the chain that tells the clock: an xor and an add each.
TURNS = 200


@dataclass(frozen=True)
class Throughput:
    """Multiply-accumulates per cycle of one core.

    Parameters
    ----------
    int8 : float
        By 8-bit dot products, at any bits.
    xnor : float
        Of one branch; two by two bits take three counts for four branches.
    lut : float
        By table look-ups in 8-bit lanes with 1-bit weights, were there nothing to widen: divided
        by the bits of the weights and the cost of widening.
    widening : float
        What it costs to widen an 8-bit partial sum, in look-ups.
    """

    int8: float
    xnor: float
    lut: float
    widening: float


# Counted from the instructions: uops per 32 or 64 byte lanes, and how many of them start per cycle.
THROUGHPUT = {
    AVX2: Throughput(int8=43, xnor=128, lut=256, widening=2.8),
    VPOPCNT_VNNI: Throughput(int8=128, xnor=682, lut=512, widening=2.5),
}
# Look-ups that fit an 8-bit partial sum, by activation bits. One bit widens so rarely that it is
# free. Beyond 4 bits a table entry no longer fits 8 bits.
LOOKUPS_PER_WIDENING = {1: float("inf"), 2: 10, 3: 4, 4: 2}


OPERATIONS_PER_BRANCH = 3  # An xor, a count and a sum, where there is one branch.


def limits(
    instruction_set: str, weight_bits: int, act_bits: int, clock_ghz: float
) -> dict[str, float]:
    """GMAC/s that each strategy can reach at best; empty for an unknown instruction set.

    Parameters
    ----------
    instruction_set : str
        A key of `THROUGHPUT`.
    weight_bits, act_bits : int
    clock_ghz : float
        Times the number of threads.
    """
    throughput = THROUGHPUT.get(instruction_set)
    if throughput is None:
        return {}
    per_cycle = {
        "int8": throughput.int8,
        "xnor": throughput.xnor * OPERATIONS_PER_BRANCH / xnor_operations(weight_bits, act_bits),
    }
    if act_bits in LOOKUPS_PER_WIDENING:
        widening = 1 + throughput.widening / LOOKUPS_PER_WIDENING[act_bits]
        per_cycle["lut"] = throughput.lut / weight_bits / widening
    return {name: macs * clock_ghz for name, macs in per_cycle.items()}


def xnor_operations(weight_bits: int, act_bits: int) -> int:
    """Vector instructions of all branches, for as many products as a vector has bits."""
    return operations(_counts(weight_bits, act_bits))


def xnor_counts(weight_bits: int, act_bits: int) -> int:
    """How many vectors of bits are counted for all branches of as many products."""
    return sum(len(count.factors) for count in _counts(weight_bits, act_bits))


def _counts(weight_bits: int, act_bits: int) -> list:
    return cover(*([2**bit for bit in range(bits)] for bits in (act_bits, weight_bits)))


def instruction_set(features: frozenset[str] | None = None) -> str:
    """Name the widest instruction set that `THROUGHPUT` knows, or "other"; this machine's."""
    features = host_features() if features is None else features
    if {"avx512vpopcntdq", "avx512vnni"} <= features:
        return VPOPCNT_VNNI
    return AVX2 if "avx2" in features else "other"


def clock_ghz() -> float:
    """Cycles per nanosecond, from a chain of one-cycle operations that can't overlap."""
    library = tvm.compile(tvm.IRModule({"chain": _chain}), target=native_target().tvm_target)
    step, result = (tvm.runtime.tensor(np.ones(1, "int64")) for _ in range(2))
    chain = library["chain"]
    seconds = min(_seconds(lambda: chain(step, result)) for _ in range(TURNS))
    return CYCLES_PER_LINK * LINKS / seconds / 1e9


def _seconds(run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@T.prim_func
def _chain(step: T.Buffer((1,), "int64"), result: T.Buffer((1,), "int64")):
    T.func_attr({"global_symbol": "chain"})
    for i in T.serial(LINKS):
        result[0] = (result[0] ^ T.Cast("int64", i)) + step[0]
