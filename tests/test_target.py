"""Target files, the native CPU, and what is refused."""

import pytest
import tvm
from tvm.target import codegen

import tvm_bitenc as be
from tvm_bitenc import host
from tvm_bitenc import target as target_module
from tvm_bitenc.data import data_folder
from tvm_bitenc.deploy.linker import gnu_compiler, is_native
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import TargetError
from tvm_bitenc.host import check_runs_here, host_features, missing_instructions
from tvm_bitenc.records.workload import target_key
from tvm_bitenc.schedule import RULE_SETS, RuleSet, own_features, rule_sets_of
from tvm_bitenc.target import (
    DEFAULT_RULES,
    Core,
    Target,
    load_target,
    native_target,
    read_target,
    target_names,
)

VTA = (data_folder("targets") / "vta" / "default.toml").read_text()
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


@pytest.mark.parametrize(
    "name, cpu",
    [
        ("raspberry-pi-3", "cortex-a53"),
        ("raspberry-pi-4", "cortex-a72"),
        ("raspberry-pi-5", "cortex-a76"),
        ("graviton2", "neoverse-n1"),
        ("graviton3", "neoverse-v1"),
    ],
)
def test_boards_are_names_of_their_cpu(name, cpu):
    board, target = load_target(name), load_target(cpu)
    assert (board.name, board.cpu) == (name, cpu) and board.description != target.description
    assert (board.rules, board.core, board.emulator) == (target.rules, target.core, target.emulator)
    assert target_key(board) == target_key(target)  # Tuned records hold for both.


def test_a_board_of_ones_own(tmp_path):
    path = tmp_path / "router.toml"
    path.write_text('same_as = "cortex-a53"\n')
    target = load_target(path)
    assert (target.name, target.cpu) == ("router", "cortex-a53")
    assert target.description == load_target("cortex-a53").description
    for text, message in [
        (
            'same_as = "cortex-b53"\n',
            "is same_as 'cortex-b53', which is no other file in targets/",
        ),
        ('same_as = "router"\n', "is same_as 'router'"),
        ('same_as = "cortex-a53"\nemulator = "qemu"\n', "unknown field `emulator`"),
        ("same_as = 53\n", "at same_as: expected `str`, got `int`"),
        ('same_as = "vta/default"\n', "which is no other file in targets/"),
    ]:
        path.write_text(text)
        with pytest.raises(TargetError, match=message):
            load_target(path)


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


LINUX = dict(mtriple="aarch64-linux-gnu")


@pytest.mark.parametrize(
    "options, name",
    [
        (dict(mtriple="x86_64-linux-gnu", mcpu="haswell"), "avx2"),
        (dict(mtriple="x86_64-linux-gnu", mcpu="znver4"), "avx512"),
        (LINUX, "neon"),
        (dict(LINUX, mcpu="cortex-a76"), "dotprod"),
        (dict(LINUX, mcpu="neoverse-n2"), "i8mm"),
        (dict(mtriple="arm64-linux-gnu"), "neon"),
        (dict(mtriple="armv7-unknown-linux-gnueabihf", mattr=["+neon"]), "neon"),
    ],
    ids=str,
)
def test_targets_of_tvm_get_the_kernels_of_their_cpu(options, name):
    target = load_target(tvm.target.Target({"kind": "llvm", **options}))
    assert next(r.name for r in rule_sets_of(target) if r.isa and r.isa(target)) == name


@pytest.mark.parametrize(
    "triple", ["aarch64_be-linux-gnu", "arm64_32-apple-watchos", "armeb-linux"]
)
def test_relatives_of_arm_get_plain_kernels(triple):
    target = on(triple, "neon")
    assert not any(rules.isa and rules.isa(target) for rules in rule_sets_of(target))


def test_arm64_is_aarch64(random_layer, layers_module, tmp_path):
    pair = Encoding.symmetric(2, 2.0), Encoding.unsigned(2, 2.0)
    mod, code = layers_module([random_layer(0, *pair, channels=64)]), set()
    for triple in ("aarch64-linux-gnu", "arm64-linux-gnu"):
        target = tvm.target.Target({"kind": "llvm", "mtriple": triple})
        folder = be.build(mod, target, threads=1).export_c(tmp_path / triple)
        code.add((folder / "net_kernels.o").read_bytes())
    assert len(code) == 1


@pytest.mark.parametrize("system", ["arm64-apple-darwin23.0.0", "aarch64-unknown-linux-gnu"])
def test_either_name_of_arm64_is_this_machine(system, monkeypatch):
    """LLVM calls Apple's own machines by the one, Linux ones by the other."""
    monkeypatch.setattr(codegen, "llvm_get_system_triple", lambda: system)
    monkeypatch.setattr(host, "missing_instructions", lambda *_: [])
    for triple in (system, "arm64-linux-gnu", "aarch64-linux-gnu"):
        check_runs_here(on(triple))
        assert is_native(on(triple))
    with pytest.raises(TargetError, match="x86_64"):
        check_runs_here(on("x86_64-linux-gnu"))


def test_compilers_go_by_the_name_of_gnu():
    assert gnu_compiler(on("arm64-linux-gnu")) == "aarch64-linux-gnu-gcc"
    assert gnu_compiler(on("armv7-unknown-linux-gnueabihf")) == "arm-linux-gnueabihf-gcc"


def test_features_follow_mattr(tmp_path):
    path = tmp_path / "board.toml"
    path.write_text(GOOD + 'mattr = ["-avx2", "+avx512vnni"]\n')
    features = read_target(path).features
    assert "avx2" not in features and "avx512vnni" in features


def test_a_tvm_target_is_taken_as_it_is():
    own = tvm.target.Target({"kind": "llvm", "mcpu": "haswell", "opt-level": 1})
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
        ("description = 'no table'\n", "missing required field `tvm`"),
        ("tvm = 3\n", "at tvm: expected `object`"),
        (GOOD + "[extra]\n", "unknown field `extra`"),
        (GOOD + "[schedule]\nrules = 'generic'\n", "at schedule.rules: expected `array`"),
        (GOOD + "[schedule]\nrules = [1]\n", r"at schedule.rules\[0\]: expected `str`"),
        ("schedule = 1\n" + GOOD, "at schedule: expected `object`"),
        ("description = 1\n" + GOOD, "at description: expected `str`"),
        (GOOD + "[core]\nissue = 0\n", "at core.issue: expected `float` > 0"),
        (GOOD + "[core]\nissue = nan\n", "nan isn't a finite number"),
        (GOOD + "[core]\nin_order = 1\n", "at core.in_order: expected `bool`"),
        (GOOD + "[core]\nissues = 1\n", "at core: object contains unknown field `issues`"),
        ('[tvm]\nmcpu = "znver99"\n', "no CPU 'znver99'"),
        ("[tvm]\nno-such-key = 1\n", "at tvm: object contains unknown field `no-such-key`"),
        ('[tvm]\nkind = "no-such-kind"\n', "at tvm.kind: invalid enum value"),
        ('[tvm]\nmtriple = "foo-bar"\n', "at tvm.mtriple: expected `str` matching"),
        ('[tvm]\ncl-opt = ["-o=x"]\n', "unknown field `cl-opt`"),
        ('[tvm]\nmattr = [""]\n', r"at tvm.mattr\[0\]: expected `str` matching"),
        ("[tvm]\nmcpu = 'a'\nmcpu = 'b'\n", "isn't TOML"),
        ("x = " + "[" * 5000, "nested 5000 deep"),
        ("x = " + "{a=" * 5000, "nested 5000 deep"),
        ("a" + ".a" * 5000 + " = 1", "dotted key of more than 8 parts"),
        ("x = " + "9" * 5000, "isn't TOML"),
        ("#" * 70000, "is larger than 65,536 bytes"),
        ("[array]\nDM = 8\n", "missing required field|at array"),
        (VTA.replace("DM = 8", "DM = 7"), "DM = 7"),
        (VTA.replace("DN = 8", "DN = 6"), "DN = 6"),
        (VTA.replace("DK = 64", "DK = 48"), "DK = 48. Use one of 32, 64, 128, 256"),
        (VTA.replace("act = 1024", "act = -1"), "at buffers.act: expected `int` >= 1"),
        (VTA.replace("act = 1024", "act = true"), "at buffers.act: expected `int`, got `bool`"),
        (VTA.replace("tokens = 8", ""), "missing required field `tokens`"),
        (VTA + "more = 1\n", "unknown field `more`"),
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
    for content, message in ((b"\xff\xfe\x00", "isn't TOML"), (b"\xef\xbb\xbf", "byte order")):
        path.write_bytes(content)
        with pytest.raises(TargetError, match=message):
            load_target(path)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(TargetError, match="znver5.*path to a TOML") as caught:
        load_target("z80")
    assert "'z80'" in str(caught.value)


@pytest.mark.parametrize(
    "triple, whole",
    [
        ("armv7-linux-gnueabihf", "armv7-unknown-linux-gnueabihf"),
        ("thumbv7em-none-eabihf", "thumbv7em-unknown-none-eabihf"),
        ("armv7-unknown-linux-gnueabihf", "armv7-unknown-linux-gnueabihf"),
        ("aarch64-linux-gnu", "aarch64-linux-gnu"),
    ],
)
def test_triples_of_32_bit_arm_name_a_vendor(triple, whole, tmp_path):
    """Without, LLVM doesn't see the ABI, and calls conversions of floats in another way."""
    path = tmp_path / "board.toml"
    path.write_text(f'[tvm]\nmtriple = "{triple}"\n')
    own = tvm.target.Target({"kind": "llvm", "mtriple": triple})
    assert load_target(path).triple == load_target(own).triple == whole


def test_boards_have_one_thread():
    assert load_target("cortex-m3").threads == load_target("cortex-m3", threads=1).threads == 1
    assert load_target("riscv64").threads is None and not load_target("riscv64").is_bare
    with pytest.raises(TargetError, match="threads=2: target 'cortex-m3' has no operating system"):
        load_target("cortex-m3", threads=2)


@pytest.mark.parametrize("threads", [0, -1, "2"])
def test_thread_counts(threads):
    with pytest.raises(TargetError, match="1 or more"):
        load_target("native", threads=threads)


def test_what_is_no_target_is_refused():
    with pytest.raises(TargetError, match="is of class int. Give a name or a path"):
        load_target(3)


@pytest.mark.parametrize(
    "config, message",
    [
        ({"mtriple": "armv7-linux-gnueabihf"}, "is for armv7.*Export the library and run it there"),
        ({"mtriple": "thumbv7m-none-eabi"}, "is for thumbv7m.*Write it with export_c"),
        ({"mcpu": "x86-64", "mattr": ["+avx10.2-512", "+avx512bf16x"]}, "lacks: .*avx512bf16x"),
    ],
)
def test_other_cpus_are_refused(config, message):
    target = load_target(tvm.target.Target({"kind": "llvm", **config}))
    with pytest.raises(TargetError, match=message):
        check_runs_here(target)


def test_native_takes_the_rates_of_the_file_that_names_its_cpu(monkeypatch):
    monkeypatch.setattr(target_module.codegen, "llvm_get_system_cpu", lambda: "znver5")
    monkeypatch.setattr(target_module, "_hidden_features", lambda claimed: set())
    found = native_target()
    assert found.core == load_target("znver5").core and found.core.source
    # Of no use, and so no reason to doubt the rates; but of instructions that aren't there.
    for hidden, core in [({"avx512fp16"}, found.core), ({"avx512vnni"}, Core())]:
        monkeypatch.setattr(target_module, "_hidden_features", lambda claimed, names=hidden: names)
        assert native_target().core == core
    monkeypatch.setattr(target_module.codegen, "llvm_get_system_cpu", lambda: "bonnell")
    assert native_target().core == Core() and not Core().source


def test_a_target_of_tvm_has_the_rates_of_its_cpu():
    def core_of(**keys):
        return load_target(tvm.target.Target({"kind": "llvm", **keys})).core

    assert core_of(mcpu="znver5") == load_target("znver5").core != Core()
    assert core_of(mcpu="znver5", mattr=["-avx512f"]) == core_of(mcpu="haswell") == Core()


def test_files_with_rates_are_called_as_their_cpu():
    """Native targets find them so."""
    for name in target_names():
        target = load_target(name)
        if name != "native" and target.accelerator is None and target.core.source:
            assert target.cpu == name


@pytest.mark.parametrize("asked, level", [({}, 2), ({"opt-level": 3}, 3), ({"opt-level": 0}, 0)])
def test_level_of_llvm(asked, level):
    """Where nobody asks: at the third, kernels of look-ups take it minutes."""
    found = load_target(tvm.target.Target({"kind": "llvm", "mcpu": "haswell", **asked})).tvm_target
    assert found.attrs["opt-level"] == level and found.attrs["mcpu"] == "haswell"
    assert load_target("native").tvm_target.attrs["opt-level"] == 2
    assert load_target("cortex-m4").tvm_target.attrs["opt-level"] == 3
