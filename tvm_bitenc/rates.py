"""What one core of this machine starts in a cycle: `[core]` of a target file, measured.

Each rate comes from a loop of instructions of one kind, in so many chains side by side that none
waits for another; and a chain of instructions of one cycle each, which can't overlap, tells the
clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from .errors import TargetError
from .kernel.isa import Isa
from .kernel.neon import Neon
from .kernel.tir import Register, Vector, imported, load, reinterpret, store, vector
from .schedule import isa_of
from .target import Target, native_target

LINKS, CYCLES_PER_LINK = 1 << 16, 2  # Of the chain that tells the clock: an xor and an add each.
CHAINS = 12  # More than the cycles that any of the instructions takes times how many start in one.
ROUNDS = 1 << 12  # Of a loop; short, so that some runs of it are undisturbed.
IN_A_ROW = 2  # Instructions of a chain in one round.
NOTHINGS = 256  # Instructions without effect in a round: all that limits them is `issue`.
SECONDS = 0.5  # For each rate.
NEAR = 0.08  # Calls and ends of loops take so much of what a core could do.
SOURCE = "measured by bitenc doctor --rates"

Step = Callable[[Vector, Vector, Vector], Vector]  # Next value of a chain: bytes and constants.


@dataclass(frozen=True)
class Loop:
    """A loop whose instructions are counted.

    Parameters
    ----------
    rate : str
        The field of `Core` that it measures.
    instructions : int
        So many run in one call.
    function : tirx.PrimFunc
        Takes three vectors of bytes, and somewhere to write.
    """

    rate: str
    instructions: int
    function: tirx.PrimFunc


def measure_rates(
    target: Target | None = None, say: Callable[[str], None] = print
) -> dict[str, float]:
    """Measure the rates of a core of this machine, about three seconds' work.

    Parameters
    ----------
    target : Target, optional
        Whose vectors are used; default this machine's widest.
    say : callable
        Is told what comes next.

    Returns
    -------
    dict of str to float
        By field of `Core`; whole where they are nearly whole, else with two digits.

    Raises
    ------
    TargetError
        If no rule set of vector instructions fits this CPU.
    """
    target = native_target() if target is None else target
    isa = isa_of(target)
    if isa is None:
        raise TargetError(
            f"target {target.name!r}",
            "none of its rule sets has vector instructions that this CPU offers",
            "Leave [core] out of its file: nothing reads it",
        )
    rates = {}
    for loop in loops_of(isa):
        say(f"measuring {loop.rate}: {loop.instructions:,} instructions, for {SECONDS} s")
        rates[loop.rate] = _rounded(
            rate_of(loop, *_fastest(_run_of(loop, isa, target), _clock_run()))
        )
    return rates


def rate_of(loop: Loop, seconds: float, clock_seconds: float) -> float:
    """Instructions per cycle of a loop, from its time and that of the chain beside it."""
    cycles = seconds * CYCLES_PER_LINK * LINKS / clock_seconds
    return loop.instructions / cycles


def _rounded(rate: float) -> float:
    whole = max(round(rate), 1)
    return float(whole) if abs(rate / whole - 1) <= NEAR else float(f"{rate:.2g}")


def toml_of(rates: Mapping[str, float]) -> str:
    """``[core]`` of a target file."""
    lines = [f"{name} = {rate:g}" for name, rate in rates.items()]
    return "\n".join(["[core]", *lines, f'source = "{SOURCE}"'])


def loops_of(isa: Isa) -> Iterator[Loop]:
    """A loop for each rate that an instruction set has instructions for."""
    n = isa.vector_bytes
    quads = vector("int32", n // 4)

    def octets(value: Vector) -> Vector:
        return reinterpret(vector("uint8", n), value)

    def logic(x: Vector, a: Vector, b: Vector) -> Vector:
        return (x ^ a) + b

    def count(x: Vector, _a: Vector, _b: Vector) -> Vector:
        if isinstance(isa, Neon):
            return isa.popcount_bytes(x)
        return octets(tirx.popcount(reinterpret(vector("uint64", n // 8), x)))

    def lookup(x: Vector, _a: Vector, b: Vector) -> Vector:
        return isa.lookup(x, b)

    def product(x: Vector, a: Vector, b: Vector) -> Vector:
        signed = reinterpret(vector("int8", n), b)
        if isa.has_dot:
            return octets(isa.dot(reinterpret(quads, x), a, signed))
        if isinstance(isa, Neon):
            pairs = reinterpret(vector("int16", n // 2), x)
            return octets(isa.multiply_pairs(pairs, a, signed, 0))
        return octets(isa.multiply_add_bytes(x, signed))

    yield _nothings(n)
    yield _chains("vector", isa, logic, 2)
    if isa.has_popcount or isinstance(isa, Neon):
        yield _chains("count", isa, count)
    yield _chains("lookup", isa, lookup)
    yield _chains("product", isa, product)


def _chains(rate: str, isa: Isa, step: Step, instructions: int = 1) -> Loop:
    """Chains of one kind of instruction, of which a step has so many."""
    n = isa.vector_bytes
    with IRBuilder() as builder, T.prim_func():
        source, out = _arguments(n)
        with imported(isa.functions):
            a, b = (T.Bind(load(source, (CHAINS + i) * n, n)) for i in range(2))
            chains = [Register("uint8", n, load(source, i * n, n)) for i in range(CHAINS)]
            with T.serial(0, ROUNDS):
                for _ in range(IN_A_ROW):
                    for chain in chains:
                        chain.set(step(chain.get(), a, b))
            for i, chain in enumerate(chains):
                store(out, chain.get(), i * n, n)
    return Loop(rate, instructions * IN_A_ROW * CHAINS * ROUNDS, builder.get())


def _nothings(n: int) -> Loop:
    """Instructions without effect: how many start is all that limits them."""
    many = "nop\\0A" * NOTHINGS
    function = f"""
define void @bitenc_nothings() {{
  call void asm sideeffect "{many}", ""()
  ret void
}}"""
    with IRBuilder() as builder, T.prim_func():
        _arguments(n)
        with imported(function), T.serial(0, ROUNDS):
            T.evaluate(tirx.call_extern("void", "bitenc_nothings"))
    return Loop("issue", NOTHINGS * ROUNDS, builder.get())


def _arguments(n: int) -> tuple[tirx.Buffer, tirx.Buffer]:
    """What every loop reads and writes: as many vectors as chains, and two constants."""
    T.func_name("main")
    size = (CHAINS + 2) * n
    return T.arg("source", T.buffer((size,), "uint8")), T.arg("out", T.buffer((size,), "uint8"))


def _run_of(loop: Loop, isa: Isa, target: Target) -> Callable[[], object]:
    """One run of a loop, on numbers that tables and products take."""
    run = _compiled(loop.function, target)
    numbers = np.random.default_rng(0).integers(0, 16, (CHAINS + 2) * isa.vector_bytes, np.uint8)
    source, out = tvm.runtime.tensor(numbers), tvm.runtime.tensor(numbers)
    return lambda: run(source, out)


def clock_ghz() -> float:
    """Cycles per nanosecond, from a chain of one-cycle operations that can't overlap."""
    (seconds,) = _fastest(_clock_run())
    return CYCLES_PER_LINK * LINKS / seconds / 1e9


def _clock_run() -> Callable[[], object]:
    chain = _compiled(_chain(), native_target())
    step, result = (tvm.runtime.tensor(np.ones(1, "int64")) for _ in range(2))
    return lambda: chain(step, result)


def _compiled(function: tirx.PrimFunc, target: Target) -> Callable[..., object]:
    mod = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    return tvm.compile(mod, target=target.tvm_target)["main"]


def _fastest(*runs: Callable[[], object]) -> list[float]:
    """Shortest seconds of each, in turns: others may use this machine, and its clock changes."""
    best, end = [float("inf")] * len(runs), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        for i, run in enumerate(runs):
            start = time.perf_counter()
            run()
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def _chain() -> tirx.PrimFunc:
    """Links that each wait for the last; LLVM keeps the value in a register."""
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        step = T.arg("step", T.buffer((1,), "int64"))
        result = T.arg("result", T.buffer((1,), "int64"))
        with T.serial(0, LINKS) as i:
            T.buffer_store(result, (result[0] ^ tirx.Cast("int64", i)) + step[0], [0])
    return builder.get()
