"""The first linker that is found makes a library that runs on its target."""

import importlib.util
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tvm_bitenc as be
from tvm_bitenc.deploy import linker, seal
from tvm_bitenc.deploy.library import read_library
from tvm_bitenc.deploy.linker import find_linker, gnu_compiler, gnu_options, gnu_package
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import LibraryError, TargetError
from tvm_bitenc.report import Report
from tvm_bitenc.target import load_target, native_target

GNU = {"aarch64": "aarch64-linux-gnu-gcc", "armv7-neon": "arm-linux-gnueabihf-gcc"}
MACHINES = {"aarch64": 183, "armv7-neon": 40}  # e_machine of an ELF file.
BOARDS = {  # Options behind GNU's name of the compiler.
    "cortex-m3": "-mcpu=cortex-m3 -mthumb -mfloat-abi=soft",
    "cortex-m4": "-mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16",
    "cortex-m7": "-mcpu=cortex-m7 -mthumb -mfloat-abi=hard -mfpu=fpv5-sp-d16",
}
foreign = pytest.mark.skipif(
    native_target().architecture == "aarch64", reason="AArch64 isn't foreign here"
)


@pytest.fixture(scope="module")
def module(random_layer, module_of):
    layer = random_layer(0, Encoding.symmetric(2, 2.0), Encoding.unsigned(2, 2.0), name="conv")
    return module_of([layer.act_codes.shape], layer.emit)


@pytest.fixture(scope="module", params=GNU)
def model(request, module):
    return be.build(module, request.param, threads=1)


def without_ziglang(monkeypatch):
    monkeypatch.setattr(linker, "zig_command", lambda target: None)


def elf_machine(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[18:20], "little")


@foreign
@pytest.mark.parametrize("target", GNU)
def test_the_order(target, monkeypatch):
    aarch64 = load_target(target)
    monkeypatch.setattr(linker.shutil, "which", lambda name: f"/bin/{name}")
    if importlib.util.find_spec("ziglang"):
        assert find_linker(aarch64)[:4] == [sys.executable, "-m", "ziglang", "cc"]
    without_ziglang(monkeypatch)
    assert find_linker(aarch64) == [GNU[target]]
    assert find_linker(aarch64, "clang --target=x") == ["clang", "--target=x"]
    monkeypatch.setattr(linker.shutil, "which", lambda name: None)
    assert find_linker(aarch64) is None
    with pytest.raises(LibraryError, match="linker 'clang': isn't installed"):
        find_linker(aarch64, "clang")


def test_the_native_linker_comes_first_on_its_own_machine():
    assert find_linker(native_target()) == ["gcc"]
    assert (gnu_compiler(native_target()), gnu_package(native_target())) == ("gcc", "gcc")


@foreign
@pytest.mark.parametrize(
    "target, package", [("aarch64", "aarch64-linux-gnu"), ("armv7-neon", "arm-linux-gnueabihf")]
)
def test_debian_has_the_package(target, package):
    assert gnu_package(load_target(target)) == f"gcc-{package}"


@foreign
@pytest.mark.parametrize("choice", ["cc", "gnu"])
def test_each_makes_a_library_of_the_target(choice, model, tmp_path, monkeypatch):
    gnu = GNU[model.target.name]
    if not shutil.which(gnu):
        pytest.skip(f"apt-get install {gnu_package(model.target)}")
    without_ziglang(monkeypatch)
    path = model.export_library(tmp_path / "net.so", cc=f"{gnu} -Wl,-s" if choice == "cc" else None)
    check(path, model)


@foreign
@pytest.mark.slow
def test_ziglang_does_so_too(module, tmp_path):
    """Slow the first time: it compiles its C library."""
    pytest.importorskip("ziglang", reason="pip install 'tvm-bitenc[cross]'")
    model = be.build(module, "aarch64", threads=1)
    check(model.export_library(tmp_path / "net.so"), model)


def check(path, model):
    assert elf_machine(path) == MACHINES[model.target.name]
    assert read_library(path).target.triple == model.target.triple
    assert [file.name for file in path.parent.iterdir()] == ["net.so"]
    with pytest.raises(TargetError, match=f"net.so: is for {model.target.architecture}, and this"):
        be.load(path)


@foreign
def test_without_any_the_objects_and_commands_are_left(model, tmp_path, monkeypatch):
    """The commands of the message, run as they stand, make the very library."""
    gnu, path = GNU[model.target.name], tmp_path / "net.so"
    monkeypatch.setattr(linker.shutil, "which", lambda name: None)
    with pytest.raises(LibraryError, match="there is no linker for") as raised:
        model.export_library(path)
    monkeypatch.undo()
    assert gnu_package(model.target) in raised.value.cure and "tvm-bitenc[cross]" in str(raised)
    written = {file.name for file in tmp_path.iterdir()}
    sources = {"bitenc_runtime.h", "bitenc_weights.bin", "net.bitenc_runtime.c", "net.library.c"}
    objects = {name for name in written if name.endswith(".o")}
    assert written == {"net.json", "net.bitenc_weights.S", *sources, *objects}
    if not shutil.which(gnu):
        pytest.skip(f"apt-get install {gnu_package(model.target)}")
    link, sealing = map(shlex.split, raised.value.cure.split("`")[1].split(" && "))
    assert link[0] == gnu and sealing[:3] == ["python", "-m", "tvm_bitenc.deploy.seal"]
    subprocess.run(link, check=True)
    seal.main(sealing[3:])
    assert elf_machine(path) == MACHINES[model.target.name]
    assert Report.from_dict(read_library(path).report) == model.report()


@pytest.mark.parametrize("name", BOARDS)
def test_boards_have_a_compiler_and_no_libraries(name, module, tmp_path, monkeypatch):
    target = load_target(name)
    assert (gnu_compiler(target), gnu_package(target)) == ("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    assert " ".join(gnu_options(target)) == BOARDS[name]
    assert gnu_options(load_target("armv7-neon")) == gnu_options(load_target("riscv64")) == []
    monkeypatch.setattr(linker.shutil, "which", lambda name: f"/bin/{name}")
    with pytest.raises(LibraryError, match="has no operating system.*Use export_c"):
        be.build(module, name).export_library(tmp_path / "net.so")
    assert list(tmp_path.iterdir()) == []


def test_a_linker_that_fails_leaves_nothing(module, tmp_path):
    model = be.build(module, threads=1)
    with pytest.raises(LibraryError, match=r"linking failed.*Check that gcc -no-such-option"):
        model.export_library(tmp_path / "net.so", cc="gcc -no-such-option")
    with pytest.raises(LibraryError, match="linker 'no-such-cc': isn't installed"):
        model.export_library(tmp_path / "net.so", cc="no-such-cc")
    assert list(tmp_path.iterdir()) == []


def test_sealing_says_what_is_wrong(tmp_path):
    library, description = tmp_path / "net.so", tmp_path / "net.json"
    library.write_bytes(b"ELF")
    description.write_text("{")
    with pytest.raises(SystemExit, match="usage"):
        seal.main([str(library)])
    with pytest.raises(LibraryError, match=r"net\.json: isn't JSON"):
        seal.main([str(library), str(description)])
    assert library.read_bytes() == b"ELF" and len(list(tmp_path.iterdir())) == 2
