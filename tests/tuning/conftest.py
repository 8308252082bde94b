"""Small layers to tune, and devices that only sleep."""

import concurrent.futures
import tempfile
import threading
from dataclasses import replace

import pytest

from benchmarks.tune import layers_module
from benchmarks.workloads import Workload, planes_pipeline, random_codes
from tvm_bitenc.target import load_target
from tvm_bitenc.tuning.artifact import Artifact
from tvm_bitenc.tuning.builder import settled
from tvm_bitenc.tuning.measure import Times
from tvm_bitenc.tuning.task import tasks_of

TINY = Workload("tiny", "3x3", 64, 64, 6, 3, 1, 1)


class NoBuilders:
    """Instead of a `BuilderPool`: nothing is compiled."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()

    def submit(self, task, candidate):
        return settled(Artifact(tempfile.mkdtemp(dir=self.folder.name)))

    def close(self):
        self.folder.cleanup()


class SleepingDevices:
    """Instead of a farm: every measurement takes some seconds, and finds what `speedup` says."""

    is_remote = True

    def __init__(self, count, seconds, speedup=1.0):
        self.count, self.seconds, self.speedup = count, seconds, speedup
        self._pool = concurrent.futures.ThreadPoolExecutor(count)
        self._ended = threading.Event()

    def devices(self):
        return self.count

    def run(self, jobs, finished):
        def measure(number):
            self._ended.wait(self.seconds)
            finished(number, Times(1e-3 / self.speedup, 1e-3, (self.speedup,) * 9))
            return Times(1e-3 / self.speedup, 1e-3, (self.speedup,) * 9)

        return list(self._pool.map(measure, range(len(jobs))))

    def stop(self):
        self._ended.set()

    def close(self):
        self._pool.shutdown()


@pytest.fixture(scope="session")
def sleeping_devices():
    """``sleeping_devices(count, seconds, speedup)``."""
    return SleepingDevices


@pytest.fixture(scope="session")
def no_builders():
    """``no_builders()``: a pool that compiles nothing."""
    return NoBuilders


@pytest.fixture(scope="session")
def native():
    """This machine with one thread."""
    return load_target("native", 1)


@pytest.fixture(scope="session")
def tiny_module():
    """``tiny_module(bits, sizes, codes_of)``: independent layers of 64 channels, one of each size.

    Their weights are random, or what `codes_of` makes.
    """

    def make(bits=(2, 2), sizes=(6,), codes_of=random_codes):
        layers = [replace(TINY, name=f"tiny {n}", size=n) for n in sizes]
        return layers_module(layers, bits, codes_of)

    return make


@pytest.fixture(scope="session")
def tiny_tasks(tiny_module, native):
    """``tiny_tasks(bits, sizes, codes_of)``: the tasks of `tiny_module`."""
    found = tasks_of(tiny_module(), native, planes_pipeline)
    if not found:
        pytest.skip("no rules with anything to tune on this CPU: run on one with AVX2 or NEON")
    return lambda *options: tasks_of(tiny_module(*options), native, planes_pipeline)
