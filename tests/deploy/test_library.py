"""Libraries: written whole or not at all, checked before any code is loaded, run without torch."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax

import tvm_bitenc as be
from tvm_bitenc import loaded
from tvm_bitenc.deploy import library
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import LibraryError, TargetError
from tvm_bitenc.target import native_target


@pytest.fixture(scope="module")
def layer(random_layer):
    return random_layer(0, Encoding.symmetric(2, 2.0), Encoding.unsigned(3, 2.0), name="conv")


@pytest.fixture(scope="module")
def model(layer, module_of):
    return be.build(module_of([layer.act_codes.shape], layer.emit), threads=1)


@pytest.fixture
def path(model, tmp_path):
    return model.export_library(tmp_path / "net.so")


def assert_nothing_else(folder, *names):
    assert sorted(os.listdir(folder)) == sorted(names)


def test_it_comes_back_as_it_was(model, path, layer, same):
    found = be.load(str(path))
    assert same(found(layer.input), layer.reference())
    assert (found.inputs, found.outputs) == (model.inputs, model.outputs)
    assert found.report() == model.report()
    assert (found.target.name, found.target.threads) == ("native", 1)
    assert found.target.features == model.target.features
    assert found.benchmark(layer.input, number=1, repeat=1).best > 0
    assert_nothing_else(path.parent, "net.so")


RUN = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in {"tvm_bitenc", "numpy", "msgspec", *sys.stdlib_module_names}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
import numpy as np
import tvm_bitenc as be

lib = be.load(sys.argv[1])
np.save(sys.argv[2], lib(np.load(sys.argv[3])))
print(lib.report())
"""


def test_a_fresh_process_without_tvm(path, layer, tmp_path, same):
    """numpy and msgspec run a library: neither TVM nor torch is asked for."""
    files = [str(path), str(tmp_path / "y.npy"), str(tmp_path / "x.npy")]
    np.save(files[2], layer.input)
    done = subprocess.run(
        [sys.executable, "-c", RUN, *files],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(be.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert same(np.load(files[1]), layer.reference())
    assert "conv" in done.stdout and done.stderr == ""


def test_plain_tvm_loads_it(path, layer, same):
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
    assert same(machine["main"](tvm.runtime.tensor(layer.input)).numpy(), layer.reference())


def test_export_and_load_print_nothing(model, layer, tmp_path, capfd):
    model(layer.input)  # TVM warns while saving only once it has run the model.
    be.load(model.export_library(tmp_path / "net.so"))
    assert capfd.readouterr() == ("", "")


def test_other_lines_on_stderr_are_kept(capfd):
    with library._without_scope_warnings():
        os.write(2, b"a.cc:1: Warning: Scope Saving: \nmind the gap\n")
    assert capfd.readouterr().err == "mind the gap\n"


def test_a_path_written_again_gives_the_new_model(module_of, tmp_path):
    for value in (1.0, 2.0):
        constant = relax.const(np.full(3, value, np.float32))
        mod = module_of([(3,)], lambda b, x, c=constant: b.emit(relax.op.add(x, c)))
        be.build(mod).export_library(tmp_path / "net.so")
        assert be.load(tmp_path / "net.so")(np.zeros(3, np.float32)).tolist() == [value] * 3


@pytest.mark.parametrize("kept", [0, 1, 7, 0.1, 0.5, -1, -8, -9, -48, -49, -200])
def test_truncated_files(kept, path):
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(LibraryError, match=r"net\.so: is truncated.*export it again"):
        be.load(path)


def loading_never_happens(*_arguments):
    raise AssertionError("a file that was to be refused reached the dynamic loader")


@pytest.mark.parametrize("place", [0, 4096, -60, -45, -20])
def test_altered_files(place, path, monkeypatch):
    monkeypatch.setattr(loaded, "load_network", loading_never_happens)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(LibraryError, match=r"net\.so: was altered.*export it again"):
        be.load(path)


def test_missing_files_and_folders(tmp_path):
    for name in ("none.so", "."):
        with pytest.raises(LibraryError, match="can't be read"):
            be.load(tmp_path / name)


def test_sealing_again_changes_nothing(path, rewritten):
    before = path.read_bytes()
    rewritten(path, lambda description: None)
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", [1, 99])
def test_another_format_is_named(version, path, rewritten):
    rewritten(path, lambda description: description.update(format=version))
    found = f"has format {version}, .*reads format 2.*Export the model again"
    with pytest.raises(LibraryError, match=found):
        be.load(path)


def test_another_tvm_is_named(path, rewritten):
    rewritten(path, lambda description: description.update(tvm="0.99.1"))
    with pytest.raises(LibraryError, match=r"compiled with TVM 0\.99\.1.*Export it again"):
        library.read_library(path)
    be.load(path)  # It takes no TVM.
    rewritten(path, lambda description: description.update(tvm="0.27.99"))
    library.read_library(path)  # The same series.


def test_an_incomplete_description_is_named(path, rewritten):
    rewritten(path, lambda description: description.pop("inputs"))
    with pytest.raises(LibraryError, match="missing required field `inputs`.*export it again"):
        be.load(path)


def test_files_for_other_cpus(path, rewritten, monkeypatch):
    monkeypatch.setattr(loaded, "load_network", loading_never_happens)
    host = native_target().architecture
    foreign = "x86_64" if host == "aarch64" else "aarch64"
    rewritten(path, lambda d: d["target"].update(architecture=foreign))
    with pytest.raises(TargetError, match=rf"net\.so: is for {foreign}.*for this machine"):
        be.load(path)


@pytest.mark.skipif(
    native_target().architecture != "x86_64", reason="the feature is x86's: run on x86 as well"
)
def test_files_that_need_missing_instructions(path, rewritten, monkeypatch):
    monkeypatch.setattr(loaded, "load_network", loading_never_happens)
    rewritten(path, lambda d: d["target"]["instructions"].append("avx512-of-the-future"))
    with pytest.raises(TargetError, match=r"net\.so: needs CPU features.*avx512-of-the-future"):
        be.load(path)


def test_a_failed_export_leaves_the_old_file(model, path):
    before = path.read_bytes()
    with pytest.raises(LibraryError, match=r"net\.so: linking failed"):
        model.export_library(path, cc="gcc -no-such-option")
    assert path.read_bytes() == before
    with pytest.raises(LibraryError):
        model.export_library(path.parent / "other.so", cc="gcc -no-such-option")
    assert_nothing_else(path.parent, "net.so")


def test_an_interrupted_export_leaves_nothing(model, tmp_path, monkeypatch):
    def interrupted(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(library, "seal", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.export_library(tmp_path / "net.so")
    assert_nothing_else(tmp_path)


HANGING = """#!/bin/sh
while [ "$1" != -o ]; do shift; done
touch "$(dirname "$2")/ccHalf.res" "$TMPDIR/ccTemporary"
echo linking >&2
exec sleep 60
"""
EXPORT = """
import sys
import numpy as np
import tvm_bitenc as be
from tvm import relax

builder, x = relax.BlockBuilder(), relax.Var("x", relax.TensorType((1, 4), "float32"))
with builder.function("main", [x]):
    with builder.dataflow():
        y = builder.emit_output(relax.op.add(x, relax.const(np.ones((1, 4), np.float32))))
    builder.emit_func_output(y)
be.build(builder.get()).export_library(sys.argv[1], cc=sys.argv[2])
"""


SLOW = [pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGTERM, signal.SIGINT)]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, *SLOW])
def test_an_export_that_is_killed(number, model, tmp_path):
    """Nothing is left for long, beside the library or in the folder for temporary files."""
    linker, folder, temporary = tmp_path / "linker", tmp_path / "nets", tmp_path / "tmp"
    linker.write_text(HANGING)
    linker.chmod(0o755)
    folder.mkdir()
    temporary.mkdir()
    root = str(Path(be.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", EXPORT, str(folder / "net.so"), str(linker)],
        env={**os.environ, "PYTHONPATH": root, "TMPDIR": str(temporary)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not list(folder.glob(".net.so.*/ccHalf.res")):
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, number)
        assert process.wait(60) == -number
    finally:
        process.kill()
    left = os.listdir(folder)
    assert len(left) == (number == signal.SIGKILL) and os.listdir(temporary) == []
    model.export_library(folder / "net.so")
    assert_nothing_else(folder, "net.so")


def test_a_bundle_removes_what_a_killed_export_left(model, tmp_path):
    (tmp_path / ".export_c.killed.part").mkdir()
    model.export_c(tmp_path)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def mapped_libraries():
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if "model.so" in line]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="run on Linux")
def test_a_library_is_unmapped_with_its_model(path, layer, same):
    loaded = be.load(path)
    y = loaded(layer.input)
    assert mapped_libraries()
    del loaded
    assert not mapped_libraries() and same(y, layer.reference())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="run on Linux")
def test_thousands_of_loads_take_no_more_memory(path, layer, same):
    def pages():
        return int(Path("/proc/self/statm").read_text().split()[1])

    sizes = []
    for _ in range(3_000):
        assert same(be.load(path)(layer.input), layer.reference())
        sizes.append(pages())
    growth = (sizes[-1] - sizes[100]) * os.sysconf("SC_PAGE_SIZE")
    assert growth < 100 * path.stat().st_size and not mapped_libraries()


def test_places_that_cannot_be_written(model, path, tmp_path):
    with pytest.raises(LibraryError, match="can't be written.*Use another folder"):
        model.export_library(tmp_path / "missing" / "net.so")
    (tmp_path / "folder.so").mkdir()
    with pytest.raises(LibraryError, match=r"folder\.so: can't be written.*Use another name"):
        model.export_library(tmp_path / "folder.so")
    assert_nothing_else(tmp_path, "net.so", "folder.so")


def test_a_loaded_model_is_copied_not_exported(path, tmp_path):
    with pytest.raises(LibraryError, match="loaded from a library.*Copy that file"):
        be.load(path).export_library(tmp_path / "again.so")
    assert_nothing_else(tmp_path, "net.so")


DROPPED = """
import sys, time
import numpy as np
import tvm_bitenc as be

x = np.ones((1, 64, 64, 64), np.float32)
for _ in range(5):
    lib = be.load(sys.argv[1])
    assert (lib(x) == 2).all()
    del lib
    time.sleep(0.05)
"""


def test_workers_outlive_their_library(module_of, tmp_path):
    """OpenMP's threads wait in its own code, which must not go with the last library."""
    mod = module_of([(1, 64, 64, 64)], lambda b, x: b.emit(relax.op.add(x, relax.const(1.0))))
    path = be.build(mod, threads=2).export_library(tmp_path / "net.so")
    command = [sys.executable, "-c", DROPPED, str(path)]
    env = {**os.environ, "PYTHONPATH": str(Path(be.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 0, done.stderr
