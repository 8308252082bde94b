"""Target files, the native CPU, and what is refused."""

import pytest
import tvm

from tvm_bitenc.errors import TargetError
from tvm_bitenc.host import check_runs_here, host_features, missing_instructions
from tvm_bitenc.schedule import RULE_SETS, RuleSet, own_features, rule_sets_of
from tvm_bitenc.target import (
    DEFAULT_RULES,
    Target,
    load_target,
    native_target,
    read_target,
    target_names,
)

GOOD = '[tvm]\nmtriple = "x86_64-linux-gnu"\nmcpu = "haswell"\n'


def on(triple, *features):
    added = {"mattr": [f"+{name}" for name in features]} if features else {}
    return Target("board", tvm.target.Target({"kind": "llvm", "mtriple": triple, **added}))


@pytest.mark.parametrize(
    "triple, lacks",
    [
        ("riscv64-linux-gnu", "v"),
        ("riscv64-linux-gnu", "zbb"),
        ("aarch64-linux-gnu", "sve2"),
        ("x86_64-linux-gnu", "avx2"),
    ],
    ids=str,
)
def test_code_needs_the_instructions_that_it_was_compiled_with(triple, lacks):
    with_it, without = on(triple, lacks), on(triple)
    assert lacks in missing_instructions(with_it, without.features)
    assert missing_instructions(without, with_it.features) == []
    assert missing_instructions(with_it, with_it.features) == []


def test_what_only_says_how_fast_something_is_isnt_needed():
    cpus = ("znver5", "znver4")
    targets = [tvm.target.Target({"kind": "llvm", "mcpu": cpu}) for cpu in cpus]
    znver5, znver4 = (Target("x", target) for target in targets)
    fast = {name for name in znver5.features if name.startswith(("fast-", "slow-", "prefer-"))}
    assert fast and missing_instructions(znver5, znver5.features - fast) == []
    assert "avxvnni" in missing_instructions(znver5, znver4.features)


def test_every_shipped_target_loads_and_names_known_rules():
    for name in target_names():
        target = load_target(name)
        assert target.name == name and target.description
        assert [rules.name for rules in rule_sets_of(target)] == list(target.rules)


def test_what_a_file_says_arrives(tmp_path):
    path = tmp_path / "board.toml"
    path.write_text(
        'description = "A board"\n' + GOOD + '[schedule]\nrules = ["mine", "generic"]\n'
    )
    target = load_target(path)
    assert (target.name, target.description) == ("board", "A board")
    assert target.rules == ("mine", "generic")
    assert target.architecture == "x86_64" and target.triple == "x86_64-linux-gnu"
    assert "avx2" in target.features and "avx512f" not in target.features
    assert load_target(str(path), threads=3).threads == 3


def test_rule_sets_of_ones_own_stand_where_the_file_names_them(tmp_path):
    path = tmp_path / "board.toml"
    path.write_text(GOOD + '[schedule]\nrules = ["mine", "generic"]\n')
    mine, unnamed = RuleSet("mine", features=frozenset({"bmi2", "sve"})), RuleSet("unnamed")
    target = load_target(path, rule_sets=[unnamed, mine])
    assert target.rules == (mine, "generic") and target.rule_names == ("mine", "generic")
    assert rule_sets_of(target) == (mine, RULE_SETS[-1])
    assert own_features(target) == {"bmi2"}
    with pytest.raises(TargetError, match="no schedule rule set 'mine'"):
        rule_sets_of(load_target(path))


def test_every_rule_set_is_tried_where_the_file_names_none(tmp_path):
    path = tmp_path / "board.toml"
    path.write_text(GOOD)
    assert read_target(path).rules == DEFAULT_RULES


def test_features_follow_mattr(tmp_path):
    path = tmp_path / "board.toml"
    path.write_text(GOOD + 'mattr = ["-avx2", "+avx512vnni"]\n')
    features = read_target(path).features
    assert "avx2" not in features and "avx512vnni" in features


def test_a_tvm_target_is_taken_as_it_is():
    own = tvm.target.Target({"kind": "llvm", "mcpu": "haswell"})
    target = load_target(own)
    assert target.tvm_target.same_as(own) and target.name == "haswell"
    assert load_target(target, threads=1) == Target("haswell", own, threads=1)


def test_native_runs_here_and_hides_what_the_system_hides(monkeypatch):
    check_runs_here(native_target())
    assert host_features() <= native_target().features
    monkeypatch.setattr("tvm_bitenc.target._hidden_features", lambda claimed: {"popcnt"})
    assert "popcnt" not in native_target().features


@pytest.mark.parametrize(
    "content, message",
    [
        ("[tvm\n", "isn't TOML"),
        ("description = 'no table'\n", r"no \[tvm\] table"),
        ("tvm = 3\n", r"no \[tvm\] table"),
        (GOOD + "[extra]\n", "unknown keys.*extra"),
        (GOOD + "[schedule]\nrules = 'generic'\n", "list of names"),
        (GOOD + "[schedule]\nrules = [1]\n", "list of names"),
        ("schedule = 1\n" + GOOD, "list of names"),
        ('[tvm]\nmcpu = "znver99"\n', "no CPU 'znver99'"),
        ("[tvm]\nno-such-key = 1\n", r"refuses \[tvm\]"),
        ('[tvm]\nkind = "no-such-kind"\n', r"refuses \[tvm\]"),
    ],
)
def test_malformed_files_are_named(tmp_path, content, message):
    path = tmp_path / "board.toml"
    path.write_text(content)
    with pytest.raises(TargetError, match=message) as caught:
        load_target(path)
    assert "board.toml" in str(caught.value) and caught.value.cure


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "board.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TargetError, match="isn't TOML"):
        load_target(path)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(TargetError, match="znver5.*path to a TOML") as caught:
        load_target("z80")
    assert "'z80'" in str(caught.value)


@pytest.mark.parametrize("threads", [0, -1])
def test_thread_counts(threads):
    with pytest.raises(TargetError, match="1 or more"):
        load_target("native", threads=threads)


@pytest.mark.parametrize(
    "config, message",
    [
        ({"mtriple": "armv7-linux-gnueabihf"}, "is for armv7"),
        ({"mcpu": "x86-64", "mattr": ["+avx10.2-512", "+avx512bf16x"]}, "lacks: .*avx512bf16x"),
    ],
)
def test_other_cpus_are_refused(config, message):
    target = load_target(tvm.target.Target({"kind": "llvm", **config}))
    with pytest.raises(TargetError, match=message):
        check_runs_here(target)
