"""What a machine can do at best."""

from dataclasses import replace

import pytest

from tvm_bitenc.report.roof import Roof, measure_roof
from tvm_bitenc.schedule import isa_of
from tvm_bitenc.target import Core, native_target

HERE = replace(native_target(), core=Core(source="a test"))


@pytest.mark.skipif(isa_of(HERE) is None, reason="this CPU has no vectors that rules know")
def test_roofs_scale_with_clock_and_threads():
    one, four = Roof(HERE, 2.0, 10.0, 1), Roof(HERE, 4.0, 10.0, 2)
    for strategy in ("xnor", "lut", "int8"):
        assert four.gmacs(strategy, 2, 2) == pytest.approx(4 * one.gmacs(strategy, 2, 2))
    assert "2.00 GHz" in one.text and "a test" in one.text


def test_nothing_is_known_without_rates():
    roof = Roof(replace(HERE, core=Core()), 2.0, 10.0, 1)
    assert roof.gmacs("xnor", 1, 1) is None and "rates unknown" in roof.text


def test_this_machine_is_measured():
    roof = measure_roof(threads=1)
    assert 0.2 < roof.clock_ghz < 10 and roof.bandwidth > 0.1 and roof.threads == 1
    assert roof.target.cpu == native_target().cpu
