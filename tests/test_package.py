"""The wheel alone, in an empty virtual environment outside the checkout, compiles a model."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tvm import relax

import tvm_bitenc as be

ROOT = Path(__file__).parents[1]

# Only core dependencies are there: no torch, and nothing of the checkout.
SCRIPT = """
import sys
from pathlib import Path
import numpy as np
import tvm_bitenc as be
from tvm import relax
from tvm_bitenc import reference
from tvm_bitenc.data import data_folder
from tvm_bitenc.op import quantize
from tvm_bitenc.target import target_names

installed = Path(be.__file__).resolve()
assert installed.is_relative_to(Path(sys.prefix).resolve()), installed
for name in ("targets", "schedules"):
    assert data_folder(name).is_relative_to(installed.parent) and any(data_folder(name).iterdir())
assert {"native", "x86-64-v3", "x86-64-v4", "znver5", "aarch64"} <= set(target_names())

act, weight = be.Encoding.unsigned(2, 2.0), be.Encoding.symmetric(3, 2.0)
rng = np.random.default_rng(0)
a = rng.integers(0, 4, (2, 70, 6, 5), dtype=np.uint8)
w = rng.integers(0, 8, (9, 70, 3, 3), dtype=np.uint8)
builder, x = relax.BlockBuilder(), relax.Var("x", relax.TensorType(a.shape, "float32"))
with builder.function("main", [x]):
    with builder.dataflow():
        qx = builder.emit(quantize(x, act))
        qw = builder.emit(quantize(relax.const(weight.dequantize(w)), weight, layer="conv"))
        y = builder.emit_output(relax.op.nn.conv2d(qx, qw, padding=(1, 1)))
    builder.emit_func_output(y)

lib = be.build(builder.get())
expected = reference.conv2d(a, act, w, weight, padding=1)
assert np.array_equal(lib(act.dequantize(a)), expected)
print(lib.report())
loaded = be.load(lib.export_library("net.so"))
assert np.array_equal(loaded(act.dequantize(a)), expected)
be.build(builder.get(), target="aarch64")
assert "torch" not in sys.modules
try:
    be.from_torch(None)
except be.errors.BitencError as error:
    print(error)
"""


def run(*command, **options):
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=900, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def built(source, folder):
    run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
        *("--disable-pip-version-check", "--wheel-dir", folder, source),
    )
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return built(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    return built(ROOT / "packaging" / "runtime", tmp_path_factory.mktemp("runtime"))


def test_the_wheel_holds_code_and_data_alone(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    data = [path for name in ("targets", "schedules") for path in (ROOT / name).rglob("*.*")]
    assert {f"tvm_bitenc/_data/{path.relative_to(ROOT)}" for path in data} <= names
    files = (path for path in (ROOT / "tvm_bitenc").rglob("*.*") if path.suffix != ".pyc")
    code = {str(path.relative_to(ROOT)) for path in files}
    assert code <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"tvm_bitenc"}


@pytest.mark.slow
def test_the_wheel_in_an_empty_environment(wheel, tmp_path):
    environment, work = tmp_path / "env", tmp_path / "work"
    work.mkdir()
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    options = dict(env=clean, cwd=work)
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "install", wheel, **options)
    run(*pip, "check", **options)
    done = run(python, "-c", SCRIPT, **options)
    assert "conv" in done.stdout and done.stderr == ""
    assert "torch isn't installed. pip install 'tvm-bitenc[torch]'" in done.stdout
    assert [path.name for path in work.iterdir()] == ["net.so"]


# Of this environment only packages that the runtime depends on; the checkout isn't found.
RUNTIME = """
import site, sys
site.addsitedir(sys.argv[3])
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
sys.path.insert(0, sys.argv[1])
import numpy as np
import tvm_bitenc as be

assert be.__file__.startswith(sys.argv[1]), be.__file__
lib = be.load(sys.argv[2])
x = np.arange(3, dtype=np.float32)
assert np.array_equal(lib(x), x + 1)
print(lib.report(), lib.benchmark(x, number=1, repeat=1))
try:
    be.build(None)
except be.errors.BitencError as error:
    print(error)
assert not {"tvm", "torch"} & set(sys.modules)
print(len([name for name in sys.modules if name.startswith("tvm_bitenc")]))
"""


def test_the_runtime_alone_runs_a_library(runtime, module_of, tmp_path):
    one = relax.const(np.ones(3, np.float32))
    mod = module_of([(3,)], lambda b, x: b.emit(relax.op.add(x, one)))
    path = be.build(mod, threads=1).export_library(tmp_path / "net.so")
    with zipfile.ZipFile(runtime) as archive:
        archive.extractall(tmp_path / "installed")
        size = sum(file.file_size for file in archive.infolist())
    packages = Path(np.__file__).parents[1]
    installed = tmp_path / "installed"
    done = run(sys.executable, "-S", "-c", RUNTIME, installed, path, packages, cwd=tmp_path)
    assert "isn't part of tvm-bitenc-runtime" in done.stdout and size < 200_000
    files = len(list((tmp_path / "installed" / "tvm_bitenc").rglob("*.py")))
    assert int(done.stdout.split()[-1]) == files  # Nothing is there that isn't used.
