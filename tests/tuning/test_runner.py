import numpy as np
import pytest
from tvm.script import tirx as T

pytest.importorskip("cloudpickle", reason="pip install 'tvm-bitenc[tune]'")

from tvm_bitenc.tuning.artifact import Artifact
from tvm_bitenc.tuning.builder import compile_kernel, linker_of
from tvm_bitenc.tuning.compare import beats_default
from tvm_bitenc.tuning.measure import Job, Times, random_input
from tvm_bitenc.tuning.runner import LocalDevice

SHAPES = (((8,), "uint64"), ((8,), "uint64"))


@T.prim_func
def good(a: T.Buffer((8,), "uint64"), b: T.Buffer((8,), "uint64")):
    for i in range(8):
        b[i] = a[i]


@T.prim_func
def wrong(a: T.Buffer((8,), "uint64"), b: T.Buffer((8,), "uint64")):
    for i in range(8):
        b[i] = a[i] + T.uint64(1)


@T.prim_func
def hanging(a: T.Buffer((8,), "uint64"), b: T.Buffer((8,), "uint64")):
    for _ in range(1 << 30):
        T.evaluate(T.call_extern("int32", "usleep", 1000))


@T.prim_func
def crashing(a: T.Buffer((8,), "uint64"), b: T.Buffer((8,), "uint64")):
    T.evaluate(T.call_extern("int32", "abort"))


@pytest.fixture
def folders(tmp_path, native):
    found = {}
    for function in (good, wrong, hanging, crashing):
        name = str(function.attrs["global_symbol"])
        (tmp_path / name).mkdir()
        artifact = Artifact(str(tmp_path / name))
        compile_kernel(function, native.tvm_target, artifact.library, linker_of(native))
        found[name] = artifact.folder
    return found


@pytest.mark.slow
def test_what_a_bad_candidate_does_stays_with_it(folders):
    """It is told from the others, and the device goes on."""
    device, seen = LocalDevice(timeout=5.0), []
    jobs = [
        Job(folders[n], folders["good"], SHAPES) for n in ("hanging", "crashing", "wrong", "good")
    ]
    outcomes = device.run(jobs, lambda number, outcome: seen.append(number))
    device.close()
    assert outcomes[0] == "ran for more than 5 s and was stopped"
    assert outcomes[1] == "crashed"
    assert outcomes[2] == "gives other bits than the default"
    assert isinstance(outcomes[3], Times) and outcomes[3].seconds > 0
    assert seen == [0, 1, 2, 3]


def test_a_stopped_device_measures_no_more(folders):
    device = LocalDevice()
    device.stop()
    job = Job(folders["good"], folders["good"], SHAPES)
    assert device.run([job], lambda *_: pytest.fail("measured")) == ["not measured"]
    device.close()


def test_planes_have_zeros_behind_the_channels():
    job = Job("", "", (), channels=70)
    words = random_input(job, (5, 2, 4), "uint64", np.random.default_rng(0))
    assert np.all(words[..., 1::2] < 2**6) and words[..., ::2].max() > 2**60


@pytest.mark.parametrize(
    "speedups, verdict",
    [
        ([1.05] * 9, True),
        ([1.005] * 9, False),
        ([1.05] * 7 + [0.9] * 2, True),
        ([1.05] * 6 + [0.9] * 3, False),
        ([0.9] * 9, False),
    ],
)
def test_who_beats_the_default(speedups, verdict):
    assert beats_default(Times(1.0, 1.0, tuple(speedups))) == verdict


def test_a_missing_linker_is_named(monkeypatch):
    from tvm_bitenc.errors import TargetError
    from tvm_bitenc.target import load_target

    monkeypatch.setenv("PATH", "")
    with pytest.raises(TargetError, match="aarch64-linux-gnu-gcc isn't installed"):
        linker_of(load_target("cortex-a72"))
