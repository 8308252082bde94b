"""How a network's code is made."""

import pytest
import tvm

from tvm_bitenc.entry.code import _at_level


@pytest.mark.parametrize("asked, level", [({}, 2), ({"opt-level": 3}, 3), ({"opt-level": 0}, 0)])
def test_level_of_llvm(asked, level):
    """Where nobody asks: at the third, kernels of look-ups take it minutes."""
    target = tvm.target.Target({"kind": "llvm", "mcpu": "haswell", **asked})
    found = dict(_at_level(target).export())
    assert found["opt-level"] == level and found["mcpu"] == "haswell"
