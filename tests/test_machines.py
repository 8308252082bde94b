"""Many threads, one model: every number right, no lock held, nothing left behind."""

import copy
import os
import pickle
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax

import tvm_bitenc as be
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import BitencError, TargetError
from tvm_bitenc.target import native_target
from tvm_bitenc.threads import physical_cores, use_threads
from tvm_bitenc.vta import runtime

ACT, WEIGHT = Encoding.unsigned(2, 2.0), Encoding.symmetric(2, 2.0)
CALLERS = 8
number_of_threads = tvm.get_global_func("runtime.NumThreads")


@pytest.fixture(scope="module")
def layers(random_layer):
    """One layer, with another input for each caller."""
    size = dict(channels=16, out_channels=16, size=(40, 40), padding=1, name="conv")
    layer = random_layer(0, WEIGHT, ACT, **size)
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 4, layer.act_codes.shape, np.uint8) for _ in range(CALLERS)]
    return [type(layer)(ACT, WEIGHT, c, layer.weight_codes, layer.window, "conv") for c in codes]


@pytest.fixture(scope="module")
def module(layers, module_of):
    return module_of([layers[0].act_codes.shape], layers[0].emit)


def at_once(work, callers=CALLERS):
    """Call ``work(i)`` from so many threads that all start together; the list of results."""
    start = threading.Barrier(callers)

    def begin(i):
        start.wait(60)
        return work(i)

    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(begin, range(callers)))


def wrong_calls(lib, layers, calls, same):
    """Calls of all threads together that gave anything but the reference."""
    inputs, expected = [x.input for x in layers], [x.reference() for x in layers]
    return sum(at_once(lambda i: sum(not same(lib(inputs[i]), expected[i]) for _ in range(calls))))


@pytest.mark.parametrize("threads", [1, 2, None])
def test_every_call_is_right(threads, module, layers, same):
    lib = be.build(module, threads=threads)  # Its first use is from all threads at once.
    assert wrong_calls(lib, layers, 25, same) == 0
    assert 1 <= len(lib._runner._arenas) <= CALLERS


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_many_calls_are_right(threads, module, layers, same):
    assert wrong_calls(be.build(module, threads=threads), layers, 2000, same) == 0


def test_calls_of_a_library(module, layers, same, tmp_path):
    path = be.build(module, threads=1).export_library(tmp_path / "net.so")
    assert wrong_calls(be.load(path), layers, 10, same) == 0


def test_libraries_are_loaded_at_once(module, layers, same, tmp_path, capfd):
    path = be.build(module, threads=1).export_library(tmp_path / "net.so")
    expected = layers[0].reference()
    results = at_once(lambda _: [be.load(path)(layers[0].input) for _ in range(3)])
    assert all(same(y, expected) for loads in results for y in loads)
    os.write(2, b"still there\n")
    assert capfd.readouterr().err == "still there\n"


def test_calls_of_an_accelerator(random_layer, module_of, same):
    layer = random_layer(0, WEIGHT, ACT, channels=64, out_channels=16, kernel=1, name="conv")
    lib = be.build(module_of([layer.act_codes.shape], layer.emit), target="vta")
    assert [row.strategy for row in lib.report().layers] == ["vta"]
    assert wrong_calls(lib, [layer] * CALLERS, 3, same) == 0


def test_times_and_reports_meanwhile(module, layers, same):
    lib, expected = be.build(module, threads=1), layers[0].reference()
    before = str(lib.report())

    def work(i):
        if i % 4 == 0:
            return lib.benchmark(layers[0].input, number=3, repeat=3).best > 0
        if i % 4 == 1:
            return str(lib.report()) == before
        return all(same(lib(layers[0].input), expected) for _ in range(20))

    assert all(at_once(work))


def test_after_an_error_calls_are_right(random_layer, module_of, same, monkeypatch):
    layer = random_layer(0, WEIGHT, ACT, channels=64, out_channels=16, kernel=1, name="conv")
    lib = be.build(module_of([layer.act_codes.shape], layer.emit), target="vta")
    simulate = runtime.SIMULATORS["functional"]

    def failing(*arguments):
        if threading.current_thread() is threading.main_thread():
            raise RuntimeError("no power")
        return simulate(*arguments)

    monkeypatch.setitem(runtime.SIMULATORS, "functional", failing)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="no power"):
            lib(layer.input)
    assert lib._runner._idle == []  # Not even sound ones: they aren't told apart.
    assert wrong_calls(lib, [layer] * CALLERS, 2, same) == 0


def test_no_lock_is_held_while_kernels_run(random_layer, module_of):
    big = dict(channels=128, out_channels=128, size=(56, 56), padding=1)
    layer = random_layer(0, Encoding.symmetric(8, 2.0), Encoding.unsigned(8, 2.0), **big)
    lib = be.build(module_of([layer.act_codes.shape], layer.emit), threads=1)
    count, is_over = 0, threading.Event()

    def counting():
        nonlocal count
        while not is_over.wait(1e-4):
            count += 1

    lib(layer.input)
    interval, thread = sys.getswitchinterval(), threading.Thread(target=counting)
    sys.setswitchinterval(3600)  # Nobody gets the lock but from who gives it away.
    thread.start()
    try:
        before = count
        for _ in range(20):
            lib(layer.input)
        counted = count - before
    finally:
        sys.setswitchinterval(interval)
        is_over.set()
        thread.join()
    assert counted > 0


@pytest.mark.skipif(physical_cores() < 2, reason="run where there are two cores")
def test_each_thread_runs_with_the_count_of_the_model(module, layers):
    one, two, all_of_them = (be.build(module, threads=threads) for threads in (1, 2, None))

    def work(_):
        counts = []
        for lib in (two, all_of_them, one, two):
            lib(layers[0].input)
            counts.append(number_of_threads())
        return counts

    cores = int(os.environ["TVM_NUM_THREADS"])
    assert at_once(work, 3) == [[2, cores, cores, 2]] * 3


def test_the_count_is_set_once(monkeypatch):
    calls = []
    monkeypatch.setattr(tvm, "get_global_func", lambda _: lambda *values: calls.append(values))

    def work(_):
        for count in (None, 3, 3, 3, None, None, 3):
            use_threads(count)
        return [count for _mode, count in calls]

    assert at_once(work, 1) == [[3, 0, 3]]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="run on Linux")
def test_threads_that_end_leave_no_workers(module, layers):
    lib = be.build(module, threads=2)
    lib(layers[0].input)
    before = len(os.listdir("/proc/self/task"))
    for _ in range(20):
        at_once(lambda i: lib(layers[i].input))
    deadline = time.monotonic() + 60
    while len(os.listdir("/proc/self/task")) > before and time.monotonic() < deadline:
        time.sleep(0.01)  # The system takes a moment to forget a thread.
    assert len(os.listdir("/proc/self/task")) <= before
    assert len(lib._runner._arenas) <= CALLERS


def test_the_first_use_checks_the_cpu_in_every_thread(module, layers):
    other = "x86-64-v3" if native_target().architecture == "aarch64" else "aarch64"
    lib = be.build(module, target=other)

    def work(i):
        with pytest.raises(TargetError, match="this machine is"):
            lib(layers[i].input)
        return True

    assert all(at_once(work))


def test_weights_are_not_copied(module_of):
    weights = np.ones((512, 512), np.float32)
    constant = relax.const(weights)
    lib = be.build(module_of([(1, 512)], lambda b, x: b.emit(relax.op.matmul(x, constant))))
    x = np.ones((1, 512), np.float32)

    def resident():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    lib(x)
    before = resident()
    arenas = [lib._runner._take_arena(0) for _ in range(100)]
    assert resident() - before < 20 * weights.nbytes and len(arenas) == 100


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_model_is_written_not_pickled(copied, module):
    with pytest.raises(BitencError, match=r"can't be pickled or copied.*export_library.*load"):
        copied(be.build(module))
