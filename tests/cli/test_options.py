"""What the shell completes."""

from tvm_bitenc.cli.options import _strategies, _targets
from tvm_bitenc.strategy import ALL_STRATEGIES, AUTO


def test_targets_are_completed():
    assert _targets("x86-64") == ["x86-64-v3", "x86-64-v4"]
    assert "native" in _targets("")
    assert _targets("nothing") == []


def test_strategies_are_completed():
    assert sorted(_strategies("")) == sorted([AUTO, *ALL_STRATEGIES])
    assert _strategies("x") == ["xnor"]
