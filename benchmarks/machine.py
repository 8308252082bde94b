"""What this machine is, and what its instructions allow."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import tvm
from tvm.script import tirx as T

from tvm_bitenc.kernel.counts import counts_of, operations
from tvm_bitenc.target import host_features, native_target

from .timing import fastest

PACKAGES = ("tvm-bitenc", "apache-tvm", "onnxruntime", "torch", "numpy")
VPOPCNT_VNNI = "avx512 vpopcntdq+vnni"
AVX2 = "avx2"
LINKS, CYCLES_PER_LINK = 1 << 16, 2  # Of the chain that tells the clock: an xor and an add each.


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


@dataclass(frozen=True)
class Machine:
    """The machine of a measurement, and what ran on it."""

    cpu: str
    instruction_set: str
    clock_ghz: float
    versions: dict[str, str]

    def limits(self, weight_bits: int, act_bits: int, threads: int = 1) -> dict[str, float]:
        """GMAC/s that each strategy can reach at best; empty for an unknown instruction set."""
        throughput = THROUGHPUT.get(self.instruction_set)
        if throughput is None:
            return {}
        per_cycle = {
            "int8": throughput.int8,
            "xnor": throughput.xnor
            * OPERATIONS_PER_BRANCH
            / xnor_operations(weight_bits, act_bits),
        }
        if act_bits in LOOKUPS_PER_WIDENING:
            widening = 1 + throughput.widening / LOOKUPS_PER_WIDENING[act_bits]
            per_cycle["lut"] = throughput.lut / weight_bits / widening
        return {name: macs * self.clock_ghz * threads for name, macs in per_cycle.items()}

    def to_dict(self) -> dict:
        """Plain numbers and strings, as JSON holds them."""
        return asdict(self)


def xnor_operations(weight_bits: int, act_bits: int) -> int:
    """Vector instructions of all branches, for as many products as a vector has bits."""
    return operations(_counts(weight_bits, act_bits))


def xnor_counts(weight_bits: int, act_bits: int) -> int:
    """How many vectors of bits are counted for all branches of as many products."""
    return sum(len(count.factors) for count in _counts(weight_bits, act_bits))


def _counts(weight_bits: int, act_bits: int) -> list:
    return counts_of(*([2**bit for bit in range(bits)] for bits in (act_bits, weight_bits)))


def this_machine() -> Machine:
    """Describe this machine; measures its clock, a second's work."""
    return Machine(cpu_name(), instruction_set(), clock_ghz(), versions())


def cpu_name() -> str:
    """Name of the CPU as the system, or else LLVM, knows it."""
    llvm_name = tvm.target.codegen.llvm_get_system_cpu()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} ({llvm_name})" if names else f"{platform.machine()} ({llvm_name})"


def instruction_set() -> str:
    """Name the widest instruction set that `THROUGHPUT` knows, or "other"."""
    features = host_features()
    if {"avx512vpopcntdq", "avx512vnni"} <= features:
        return VPOPCNT_VNNI
    return AVX2 if "avx2" in features else "other"


def versions() -> dict[str, str]:
    """Versions of what takes part, of those that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def clock_ghz() -> float:
    """Cycles per nanosecond, from a chain of one-cycle operations that can't overlap."""
    library = tvm.compile(tvm.IRModule({"chain": _chain}), target=native_target().tvm_target)
    step, result = (tvm.runtime.tensor(np.ones(1, "int64")) for _ in range(2))
    chain = library["chain"]
    seconds = fastest({"chain": lambda: chain(step, result)})["chain"]
    return CYCLES_PER_LINK * LINKS / seconds / 1e9


@T.prim_func
def _chain(step: T.Buffer((1,), "int64"), result: T.Buffer((1,), "int64")):
    T.func_attr({"global_symbol": "chain"})
    for i in T.serial(LINKS):
        result[0] = (result[0] ^ T.Cast("int64", i)) + step[0]
