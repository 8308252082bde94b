"""Limits: known for this machine's CPU alone, and where its file has rates."""

from dataclasses import replace

import pytest
import tvm

from tvm_bitenc.limits import limits
from tvm_bitenc.schedule import best_macs, isa_of
from tvm_bitenc.target import DEFAULT_RULES, Core, native_target

HERE = replace(native_target(), core=Core(source="a test"))


@pytest.mark.skipif(isa_of(HERE) is None, reason="rules know no vectors of this CPU")
def test_limits_go_by_clock_and_threads():
    one = limits(HERE, 2, 2, 1.0)
    assert one == best_macs(HERE, 2, 2) and set(one) == {"xnor", "lut", "int8"}
    assert limits(HERE, 2, 2, 3.0, threads=2) == pytest.approx({s: 6 * one[s] for s in one})


def test_none_without_rates_or_for_another_cpu():
    assert limits(replace(HERE, core=Core()), 1, 1, 1.0) == {}
    other = tvm_target_of("znver4" if HERE.cpu != "znver4" else "znver5")
    away = replace(HERE, tvm_target=other, rules=DEFAULT_RULES)
    assert best_macs(away, 1, 1) and limits(away, 1, 1, 1.0) == {}


def tvm_target_of(cpu):
    return tvm.target.Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": cpu})
