"""Rates of this machine's core: arithmetic, loops, and what they are made of."""

import re

import pytest
import tvm

from tvm_bitenc import rates
from tvm_bitenc.errors import TargetError
from tvm_bitenc.schedule import isa_of
from tvm_bitenc.target import Target, load_target, native_target

NATIVE = native_target()
pytestmark = pytest.mark.skipif(isa_of(NATIVE) is None, reason="rules know no vectors of this CPU")
X86 = {"issue": "nop", "vector": "vpaddb", "lookup": "vpshufb"}
ARM = {"issue": "nop", "vector": r"add\tv\d+\.16b", "count": "cnt", "lookup": "tbl"}
MNEMONICS = {  # What each loop must be made of.
    "x86-64-v3": {**X86, "product": "vpmaddubsw"},
    "znver5": {**X86, "count": "vpopcntq", "product": "vpdpbusd"},
    "cortex-a72": {**ARM, "product": "smlal"},
    "cortex-a76": {**ARM, "product": "sdot"},
    "neoverse-n2": {**ARM, "product": "usdot"},
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


@pytest.mark.parametrize("name", MNEMONICS)
def test_loops_are_of_one_instruction(name):
    """Compiled, not run: LLVM leaves all chains and nothing but their instructions."""
    target, wanted = load_target(name), MNEMONICS[name]
    loops = {loop.rate: loop for loop in rates.loops_of(isa_of(target))}
    assert set(loops) == set(wanted)
    for rate, mnemonic in wanted.items():
        function = loops[rate].function.with_attr("global_symbol", "main")
        library = tvm.compile(tvm.IRModule({"main": function}), target=target.tvm_target)
        text = library.mod.inspect_source("asm")
        found = len(re.findall(rf"^\s+{mnemonic}\b", text, re.MULTILINE))
        each = rates.NOTHINGS if rate == "issue" else rates.CHAINS * rates.IN_A_ROW
        # LLVM writes rounds out, and some CPUs' code has nops between functions.
        assert found >= each and (rate == "issue" or found % each == 0), (rate, found)


def test_a_cpu_without_vectors_is_named():
    with pytest.raises(TargetError, match="'plain'.*vector instructions"):
        rates.measure_rates(Target("plain", NATIVE.tvm_target, ("generic",)))
