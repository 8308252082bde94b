"""A tracker and servers on loopback: what happens when they die, are slow, or come late."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest

pytest.importorskip("tornado", reason="pip install 'tvm-bitenc[tune]'")

import tvm_bitenc as be
from benchmarks.workloads import planes_pipeline
from tvm_bitenc.errors import BitencError
from tvm_bitenc.records.file import Trial, read_lines
from tvm_bitenc.tuning import farm as farm_module
from tvm_bitenc.tuning.farm import Farm, FarmError, parse_address
from tvm_bitenc.tuning.measure import Job, Times, WrongResult, sleep

HOST, KEY = "127.0.0.1", "board"
START_SECONDS = 90
# A process of its own: a thread would wait for the interpreter's lock as long as TVM holds it in a
# call to the server that the thread has stopped.
PAUSING = """
import os, signal, sys, time
while True:
    for number in (signal.SIGSTOP, signal.SIGCONT):
        os.killpg(int(sys.argv[1]), number)
        time.sleep(0.4)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


class Rack:
    """A tracker, and servers that can be started one by one."""

    def __init__(self):
        self.port, self.servers, self.pausing = free_port(), [], []
        self.tracker = self._start("rpc_tracker", "--port", self.port, "--port-end", self.port + 1)
        self.address = parse_address(f"rpc://{HOST}:{self.port}/{KEY}")
        self._wait(lambda: self.count() == 0)

    def _start(self, program, *arguments):
        return subprocess.Popen(
            [sys.executable, "-m", f"tvm.exec.{program}", "--host", HOST, *map(str, arguments)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def count(self):
        try:
            with socket.create_connection((HOST, self.port), timeout=1):
                pass
        except OSError:
            return None
        farm = Farm(self.address)
        try:
            return farm.devices()
        finally:
            farm.close()

    def _wait(self, is_so):
        end = time.time() + START_SECONDS
        while not is_so():
            assert time.time() < end, "the servers don't start"
            time.sleep(0.3)

    def add(self, number=1, wait=True):
        for _ in range(number):
            port, tracker = free_port(), f"{HOST}:{self.port}"
            options = ["--port", port, "--port-end", port + 1, "--tracker", tracker, "--key", KEY]
            self.servers.append(self._start("rpc_server", *options))
        if wait:
            self._wait(lambda: self.count() == len([s for s in self.servers if s.poll() is None]))

    def kill(self, number):
        os.killpg(self.servers[number].pid, signal.SIGKILL)

    def slow_down(self, number):
        """Stop a server half of the time, until the rack is closed."""
        group = str(self.servers[number].pid)
        self.pausing.append(subprocess.Popen([sys.executable, "-c", PAUSING, group]))

    def close(self):
        for process in self.pausing:
            process.kill()
            process.wait()
        for process in (self.tracker, *self.servers):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def rack():
    rack = Rack()
    yield rack
    rack.close()


@pytest.mark.slow
def test_one_is_killed_one_is_slow_one_is_added(rack, tiny_module, tiny_tasks, tmp_path):
    """All trials complete, and what they found is right."""
    rack.add(3)
    database, stop = tmp_path / "r.jsonl", threading.Event()

    def disturb():
        while not database.exists() or len(read_lines(database)) < 4:
            if stop.wait(0.1):
                return
        rack.kill(0)
        rack.add(1, wait=False)
        rack.slow_down(1)

    disturbing = threading.Thread(target=disturb)
    disturbing.start()
    try:
        (result,) = be.tune(
            tiny_module(),
            "native",
            24,
            database,
            str_of(rack.address),
            threads=1,
            warm_start=False,
            progress=False,
            pipeline=planes_pipeline,
            timeout=60,
        )
    finally:
        stop.set()
        disturbing.join()
    trials = [line for line in read_lines(database) if isinstance(line, Trial)]
    assert result.trials == len(trials) == 24
    assert not [trial.error for trial in trials if trial.error]
    planes = np.random.default_rng(0).integers(0, 2**64, (1, 6, 6, 2, 1), np.uint64)
    outputs = [
        be.build(tiny_module(), threads=1, database=d, pipeline=planes_pipeline)(planes)
        for d in (False, database)
    ]
    np.testing.assert_array_equal(*outputs)


def str_of(address):
    return f"rpc://{address.host}:{address.port}/{address.key}"


@pytest.mark.slow
def test_wall_time_falls_with_servers(rack):
    """With measurements that only sleep, so that one machine stands for many."""
    jobs, walls = [Job("", "", ())] * 12, []
    for _ in range(3):
        rack.add(1)
        farm = Farm(rack.address, 60.0, partial(sleep, seconds=2.0))
        start = time.perf_counter()
        outcomes = farm.run(jobs, lambda *_: None)
        walls.append(time.perf_counter() - start)
        farm.close()
        assert all(isinstance(outcome, Times) for outcome in outcomes)
    assert walls[0] > 24
    assert walls[1] < 0.65 * walls[0] and walls[2] < 0.5 * walls[0], walls


class FakeSession:
    pass


class FakeTracker:
    """Counts how often devices are asked for."""

    def __init__(self, devices=2):
        self.devices, self.requests = devices, 0

    def summary(self):
        return {"server_info": [{"key": f"server:{KEY}"}] * self.devices}

    def request(self, key, session_timeout, max_retry):
        self.requests += 1
        return FakeSession()

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def fake_farm(monkeypatch):
    """``fake_farm(measure, devices)``: a farm without any network, and its tracker."""

    def make(measure, devices=2):
        tracker = FakeTracker(devices)
        monkeypatch.setattr(farm_module.rpc, "connect_tracker", lambda host, port: tracker)
        monkeypatch.setattr(farm_module.socket, "create_connection", lambda *_: tracker)
        return Farm(parse_address(f"rpc://{HOST}:1/{KEY}"), 1.0, measure), tracker

    return make


def test_a_candidate_whose_device_dies_goes_to_another(fake_farm):
    attempts = []

    def measure(session, job):
        attempts.append(job.candidate)
        if attempts.count(job.candidate) < 2:
            raise RuntimeError("connection reset")
        return Times(1.0, 1.0, (1.0,))

    farm, _ = fake_farm(measure)
    outcomes = farm.run([Job(name, "", ()) for name in "abc"], lambda *_: None)
    assert all(isinstance(outcome, Times) for outcome in outcomes)
    assert sorted(attempts) == sorted("abc" * 2)


def test_a_candidate_that_takes_devices_down_is_given_up(fake_farm):
    def measure(session, job):
        if job.candidate == "bad":
            raise RuntimeError("connection reset\nand more")
        return Times(1.0, 1.0, (1.0,))

    farm, _ = fake_farm(measure)
    outcomes = farm.run([Job(name, "", ()) for name in ("bad", "good")], lambda *_: None)
    assert outcomes[0] == "lost 3 devices: connection reset"
    assert isinstance(outcomes[1], Times)


def test_a_wrong_or_late_candidate_isnt_tried_again(fake_farm):
    def measure(session, job):
        if job.candidate == "wrong":
            raise WrongResult("candidate", "gives other bits", "Report it")
        raise RuntimeError("RPCSessionTimeoutError: Your 1s session has expired")

    farm, tracker = fake_farm(measure)
    outcomes = farm.run([Job(name, "", ()) for name in ("wrong", "late")], lambda *_: None)
    assert outcomes == ["gives other bits", "ran for more than 1 s and was stopped"]
    assert tracker.requests == 2


def test_without_devices_tuning_ends(fake_farm, monkeypatch):
    monkeypatch.setattr(farm_module, "NO_DEVICE_SECONDS", 0.3)
    farm, _ = fake_farm(lambda *_: pytest.fail("measured"), devices=0)
    with pytest.raises(FarmError, match="has no devices"):
        farm.run([Job("", "", ())], lambda *_: None)


def test_an_unreachable_tracker_is_named(tiny_module, tmp_path):
    address = f"rpc://{HOST}:{free_port()}/{KEY}"
    with pytest.raises(BitencError, match="doesn't answer.*rpc_tracker"):
        be.tune(tiny_module(), "native", 1, tmp_path / "r.jsonl", address, pipeline=planes_pipeline)


@pytest.mark.parametrize("text", ["localhost:9190", "rpc://host/key", "rpc://host:1"])
def test_malformed_addresses_are_named(text):
    with pytest.raises(FarmError, match="rpc://host:port/key"):
        parse_address(text)
