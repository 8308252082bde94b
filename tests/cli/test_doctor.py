"""``bitenc doctor --rates``: what it prints is `[core]` of a target file."""

import json

import pytest

from tvm_bitenc.schedule import isa_of
from tvm_bitenc.target import load_target, native_target

NATIVE = native_target()
FILE = '[tvm]\nmcpu = "{cpu}"\n'


@pytest.mark.slow
@pytest.mark.skipif(isa_of(NATIVE) is None, reason="rules know no vectors of this CPU")
def test_rates_go_into_a_target_file(bitenc, tmp_path):
    """No pipe does more products or look-ups than all pipes do sums, whoever else runs here."""
    code, printed = bitenc("doctor", "--rates")
    assert not code and printed.out.startswith("[core]\n")
    path = tmp_path / "mine.toml"
    path.write_text(FILE.format(cpu=NATIVE.cpu) + printed.out)
    core = load_target(path).core
    assert "doctor" in core.source and 0 < core.vector <= 1.5 * core.issue
    assert 0 < max(core.lookup, core.product) <= 1.5 * core.vector
    code, printed = bitenc("doctor", "--rates", "--json")
    assert set(json.loads(printed.out)) >= {"issue", "vector", "lookup", "product"}


def test_rates_are_of_this_machine_alone(bitenc):
    code, printed = bitenc("doctor", "--rates", "--host", "127.0.0.1")
    assert code == 2 and "--rates" in printed.err
