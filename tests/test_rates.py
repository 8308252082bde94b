"""Rates of this machine's core: arithmetic, loops, and what they are made of."""

import re

import pytest
import tvm

from tvm_bitenc import rates
from tvm_bitenc.errors import TargetError
from tvm_bitenc.schedule import isa_of
from tvm_bitenc.target import Target, native_target

NATIVE = native_target()
pytestmark = pytest.mark.skipif(isa_of(NATIVE) is None, reason="rules know no vectors of this CPU")
# What each loop must be made of on x86, two of each chain in every round.
MNEMONICS = {
    "vector": "vpaddb",
    "count": "vpopcntq",
    "lookup": "vpshufb",
    "product": "vpdpbusd|vpmaddubsw",
}


def test_cycles_come_from_the_chain():
    """The chain takes two cycles a link; a loop of half its time has half its cycles."""
    cycles = rates.CYCLES_PER_LINK * rates.LINKS
    loop = rates.Loop("vector", cycles, None)
    assert rates.rate_of(loop, 0.5, 0.5) == 1 and rates.rate_of(loop, 0.25, 0.5) == 2


def test_rates_near_whole_numbers_are_whole(monkeypatch):
    times = iter([(0.515, 1), (0.97, 1), (1.5, 1), (2.0, 1), (4.1, 1)])
    monkeypatch.setattr(rates, "_fastest", lambda *runs: next(times))
    cycles = rates.CYCLES_PER_LINK * rates.LINKS
    loops = [rates.Loop(name, cycles, None) for name in "abcde"]
    monkeypatch.setattr(rates, "loops_of", lambda isa: loops)
    monkeypatch.setattr(rates, "_run_of", lambda *_: None)
    monkeypatch.setattr(rates, "_clock_run", lambda: None)
    said = []
    found = rates.measure_rates(NATIVE, said.append)
    assert found == {"a": 2, "b": 1, "c": 0.67, "d": 0.5, "e": 0.24}
    assert len(said) == 5 and "measuring a" in said[0]


@pytest.mark.parametrize("loop", list(rates.loops_of(isa_of(NATIVE))), ids=lambda loop: loop.rate)
def test_loops_are_of_one_instruction(loop):
    mod = tvm.IRModule({"main": loop.function.with_attr("global_symbol", "main")})
    text = tvm.compile(mod, target=NATIVE.tvm_target).mod.inspect_source("asm")
    if NATIVE.architecture != "x86_64":
        pytest.skip("mnemonics below are of x86: look at others by hand")
    if loop.rate == "issue":
        assert len(re.findall(r"\bnop\b", text)) == rates.NOTHINGS
        return
    found = len(re.findall(rf"^\s+({MNEMONICS[loop.rate]})\b", text, re.MULTILINE))
    assert found >= rates.CHAINS * rates.IN_A_ROW and found % rates.CHAINS == 0


def test_a_cpu_without_vectors_is_named():
    with pytest.raises(TargetError, match="'plain'.*vector instructions"):
        rates.measure_rates(Target("plain", NATIVE.tvm_target, ("generic",)))
