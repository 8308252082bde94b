"""Running one function: arrays as they are, arenas that are taken over, steps one by one."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from tvm import relax

import tvm_bitenc as be
from tvm_bitenc.nn import QConv2d, QLinear
from tvm_bitenc.runtime.network import Network, address_of
from tvm_bitenc.runtime.size import ALIGNMENT

TWO = dict(weight_bits=2, act_bits=2)


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = QConv2d(3, 16, 3, weight_bits=2, act_bits=2), torch.nn.MaxPool2d(2, padding=1)
    return torch.nn.Sequential(
        *layers, torch.nn.Flatten(), QLinear(256, 5, weight_bits=2, act_bits=2)
    )


@pytest.fixture(scope="module")
def mod(net):
    return be.from_torch(net, (torch.zeros(1, 3, 8, 8),))


@pytest.fixture(scope="module", params=["built", "loaded"])
def lib(request, mod, tmp_path_factory):
    lib = be.build(mod, threads=2)
    if request.param == "built":
        return lib
    return be.load(lib.export_library(tmp_path_factory.mktemp("net") / "net.so"))


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).random((1, 3, 8, 8), np.float32)


@pytest.fixture(scope="module")
def y(mod, x) -> np.ndarray:
    """By TVM's own compiler."""
    return be.build(mod, pipeline=be.transform.no_lowering)(x)


def test_it_is_one_function(lib, x, y):
    assert np.array_equal(lib(x), y)
    assert isinstance(lib._runner, Network) and lib.report().notes == []


def test_arrays_of_any_alignment(lib, x, y):
    memory = np.zeros(x.nbytes + 2 * ALIGNMENT, np.uint8)
    for start in (0, 4, 8, 20, 60):
        place = memory[start : start + x.nbytes].view(np.float32).reshape(x.shape)
        place[:] = x
        assert np.array_equal(lib(place), y)
    odd = memory[3 : 3 + x.nbytes].view(np.float32).reshape(x.shape)
    odd[:] = x
    assert not odd.flags.aligned and np.array_equal(lib(odd), y)


def test_an_array_that_cannot_be_written(lib, x, y):
    fixed = x.copy()
    fixed.flags.writeable = False
    assert np.array_equal(lib(fixed), y)


def test_arenas_are_taken_over(lib, x):
    lib(x)
    kept = list(lib._runner._arenas)
    for _ in range(5):
        lib(x)
    assert lib._runner._arenas == kept and kept[0].address % ALIGNMENT == 0


def test_what_an_arena_held_before_is_no_matter(lib, x, y):
    lib(x)
    for arena in lib._runner._arenas:
        arena._memory[:] = 0xFF
    assert np.array_equal(lib(x), y)


def test_steps_add_up(lib, x, y):
    times = lib._runner.call_times([x], 3)
    names = [name for name, _ in times]
    assert len(names) == len(lib._runner._interface.steps) and all(s >= 0 for _, s in times)
    assert any("conv" in name for name in names)
    assert np.array_equal(lib(x), y)


def test_threads_of_a_loaded_library(mod, lib, x, y):
    wrong = []

    def work():
        wrong.extend(1 for _ in range(50) if not np.array_equal(lib(x), y))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_dynamic_batch(net):
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(net, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: batch},))
    lib = be.build(be.from_torch(program), threads=2)
    images = torch.rand(7, 3, 8, 8)
    one_by_one = np.concatenate([lib(images[i : i + 1]) for i in range(7)])
    assert np.array_equal(lib(images), one_by_one) and isinstance(lib._runner, Network)
    assert lib.report().notes == []


def test_several_outputs_and_a_scalar(module_of):
    def body(b, x):
        return [b.emit(relax.op.sum(x)), x, b.emit(relax.op.exp(x))]

    lib = be.build(module_of([(2, 3)], body))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    total, same, _ = lib(x)
    assert total.shape == () and total == 15 and np.array_equal(same, x)
    assert address_of(same) != address_of(x)


def test_four_floats_at_any_address(module_of):
    """A vector of 16 bytes that LLVM held for aligned would be loaded as one that is."""
    lib = be.build(module_of([(4,)], lambda b, x: b.emit(relax.op.multiply(x, x))), threads=1)
    memory = np.arange(16, dtype=np.float32)
    for start in range(4):
        x = memory[start : start + 4]
        assert np.array_equal(lib(x), x * x)


def test_bytes_at_any_address(module_of):
    """As loads of vectors see them: a byte is aligned wherever it lies."""
    rng = np.random.default_rng(0)

    def body(b, x):
        return b.emit(relax.op.add(relax.op.astype(x, "int32"), relax.const(7, "int32")))

    lib = be.build(module_of([(1, 8, 8, 67)], body, dtype="uint8"), threads=1)
    memory = rng.integers(0, 256, 8 * 8 * 67 + ALIGNMENT, np.uint8)
    for start in range(0, ALIGNMENT, 7):
        x = memory[start : start + 8 * 8 * 67].reshape(1, 8, 8, 67)
        assert np.array_equal(lib(x), x.astype(np.int32) + 7)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="run on Linux")
def test_calls_and_loads_leave_nothing(mod, x, tmp_path):
    path = be.build(mod, threads=1).export_library(tmp_path / "net.so")

    def resident() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    lib = be.load(path)
    for _ in range(1000):
        lib(x)
        be.load(path)(x)
    before = resident()
    for _ in range(100_000):
        lib(x)
    for _ in range(10_000):
        be.load(path)(x)
    assert resident() - before < 1 << 20
