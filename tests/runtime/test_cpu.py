"""What a CPU has, as its system tells, is what LLVM says of it."""

import pytest

from tvm_bitenc.features import instructions
from tvm_bitenc.runtime import cpu
from tvm_bitenc.target import load_target, native_target


def test_this_machine():
    target = native_target()
    needed = instructions(target.features, target.architecture)
    assert needed and cpu.architecture() == target.architecture
    assert cpu.missing_here(needed) == []
    assert cpu.missing_here(["avx512-of-the-future", "neon-of-the-past"]) == [
        "avx512-of-the-future",
        "neon-of-the-past",
    ]


def test_an_old_cpu(tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor : 0\nflags\t\t: fpu sse sse2 pni ssse3 sse4_1 sse4_2 popcnt avx f16c\n"
    )
    present = cpu._x86_features(cpuinfo)
    monkeypatch.setattr(cpu, "cpu_features", lambda: present)
    v3 = load_target("x86-64-v3")
    missing = cpu.missing_here(instructions(v3.features, v3.architecture))
    assert missing == ["avx2", "bmi", "bmi2", "fma", "lzcnt", "movbe"]


@pytest.mark.parametrize("name", ["cortex-a72", "cortex-a76", "neoverse-n2", "armv7-neon"])
def test_every_instruction_of_arm_targets_has_a_bit(name):
    target = load_target(name)
    tables = cpu._AARCH64 if target.architecture == "aarch64" else cpu._ARM
    known = {name for table in tables for name in table}
    known |= {part for name in known for part in cpu._PARTS.get(name, ())}
    assert instructions(target.features, target.architecture) <= known


def test_a_system_that_says_nothing(tmp_path, monkeypatch):
    assert cpu._x86_features(tmp_path / "none") is None
    monkeypatch.setattr(cpu.platform, "machine", lambda: "riscv64")
    assert cpu.missing_here(["v"]) is None
