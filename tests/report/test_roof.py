"""What a machine can do at best."""

import pytest

from tvm_bitenc.report.roof import Roof, measure_roof


def test_roofs_scale_with_clock_and_threads():
    one, four = Roof("avx2", 2.0, 10.0, 1), Roof("avx2", 4.0, 10.0, 2)
    for strategy in ("xnor", "lut", "int8"):
        assert four.gmacs(strategy, 2, 2) == pytest.approx(4 * one.gmacs(strategy, 2, 2))
    assert (
        one.gmacs("lut", 2, 8) is None and Roof("other", 2.0, 10.0, 1).gmacs("xnor", 1, 1) is None
    )


def test_this_machine_is_measured():
    roof = measure_roof(threads=1)
    assert 0.2 < roof.clock_ghz < 10 and roof.bandwidth > 0.1 and roof.threads == 1
