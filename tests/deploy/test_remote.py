"""Libraries run through RPC on loopback: as here to the bit, or with a clear error and no trace.

The servers are of this machine's CPU; test_emulated.py has one of AArch64.
"""

import signal
import socket
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

import tvm_bitenc as be
from tvm_bitenc.deploy import connection, remote
from tvm_bitenc.deploy.connection import Connection
from tvm_bitenc.deploy.inputs import random_inputs
from tvm_bitenc.deploy.machine import Machine
from tvm_bitenc.deploy.remote import Deployment, deploy
from tvm_bitenc.deploy.serve import Server, free_port
from tvm_bitenc.errors import BitencError, LibraryError, RemoteError, TargetError
from tvm_bitenc.nn.models import DigitsCNN

ENDLESS = 10**9  # Runs to time: the server is still at it when something happens to it.


@pytest.fixture(scope="module")
def digits():
    """A network, its input, and its library."""
    torch.manual_seed(0)
    model, x = DigitsCNN(2, 2).eval(), torch.randint(0, 17, (1, 1, 8, 8)).float()
    return be.build(be.from_torch(model, (x,)), threads=1), x.numpy()


@pytest.fixture
def path(digits, tmp_path):
    return digits[0].export_library(tmp_path / "net.so")


def nothing_left(server) -> bool:
    return not list(Path(server.folder).rglob("bitenc-*.so"))


def test_digits_through_rpc(server, path, digits, same, capfd):
    model, x = digits
    done = deploy(path, [x], Connection(port=server.port), number=3)
    assert len(done.outputs) == 1 and same(done.outputs[0], model(x))
    assert done.benchmark.seconds.shape == (3,)
    assert set(done.benchmark.layers) == set(model.benchmark(x, number=1, repeat=1).layers)
    assert max(done.benchmark.layers.values()) > 0
    assert nothing_left(server)


def test_times_are_of_whole_runs(server, module_of, tmp_path):
    """As long as the matrix product takes at least, not as long as asking for it."""
    from tvm import relax

    size = 256
    mod = module_of([(size, size)], lambda b, x: b.emit(relax.op.matmul(x, x)))
    path = be.build(mod, threads=1).export_library(tmp_path / "net.so")
    x = np.ones((size, size), np.float32)
    times = deploy(path, [x], Connection(port=server.port), number=3).benchmark
    (product,) = times.layers.values()
    assert product > 1e-4 and 0.2 < times.best / product < 5


def test_several_outputs_and_types(server, module_of, tmp_path, same):
    from tvm import relax

    mod = module_of(
        [(2, 3)], lambda b, x: [b.emit(relax.op.add(x, x)), b.emit(relax.op.greater(x, x))]
    )
    model = be.build(mod, threads=1)
    x = random_inputs(model.inputs)[0]
    path = model.export_library(tmp_path / "net.so")
    outputs = deploy(path, [x], Connection(port=server.port), number=1).outputs
    assert len(outputs) == 2 and all(map(same, outputs, model(x)))


def test_differences_count_bits_not_values():
    here = np.array([0.0, np.nan, 1.0, 2.0], np.float32)
    done = Deployment([np.array([-0.0, np.nan, 1.0, 3.0], np.float32)], None)
    assert done.differences([here]) == 2
    with pytest.raises(BitencError, match="Give the same model"):
        done.differences([here.astype(np.float64)])


@pytest.mark.slow
def test_a_tracker_finds_devices_by_key(path, digits, same, wait_until):
    from tvm.rpc.tracker import Tracker

    port = free_port()
    tracker = Tracker("127.0.0.1", port, port + 1, silent=True)
    try:
        with Server(port=0, key="board", tracker=("127.0.0.1", tracker.port)):
            there = Connection(port=tracker.port, key="board", is_tracker=True)

            def run():
                try:
                    return deploy(path, [digits[1]], there, number=1)
                except RemoteError as error:
                    assert "no free device with key 'board'" in str(error)  # Not yet.

            assert same(wait_until(run).outputs[0], digits[0](digits[1]))
            other = Connection(port=tracker.port, key="phone", is_tracker=True)
            with pytest.raises(RemoteError, match="no free device with key 'phone'"):
                deploy(path, [digits[1]], other)
    finally:
        tracker.terminate()


def test_a_library_for_another_cpu_is_not_sent(server, path, digits, rewritten, monkeypatch):
    monkeypatch.setattr(remote, "_uploaded", None)
    there = Connection(port=server.port)
    foreign = {"kind": "llvm", "mtriple": "armv7-linux-gnueabihf", "mattr": ["+neon"]}
    rewritten(path, lambda d: d["target"].update(tvm=foreign))
    with pytest.raises(TargetError, match="but the library is for armv7.*the device's target"):
        deploy(path, [digits[1]], there)
    features = {"kind": "llvm", "mattr": ["+avx512-of-the-future"]}
    rewritten(path, lambda d: d["target"].update(tvm=features))
    with pytest.raises(TargetError, match="lacks what target.*avx512-of-the-future"):
        deploy(path, [digits[1]], there)


def test_another_tvm_there_is_named(server, path, digits, monkeypatch):
    monkeypatch.setattr(
        remote, "remote_machine", lambda s: Machine(digits[0].target.triple, tvm="0.99.0")
    )
    with pytest.raises(RemoteError, match=r"has TVM 0\.99\.0.*pip install 'apache-tvm=="):
        deploy(path, [digits[1]], Connection(port=server.port))


def test_damaged_files_and_wrong_inputs_need_no_server(path, digits):
    nowhere = Connection(port=free_port())
    with pytest.raises(BitencError, match=r"input.*compiled for float32"):
        deploy(path, [digits[1][:, :, 1:]], nowhere)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(LibraryError, match="is truncated"):
        deploy(path, [digits[1]], nowhere)


def test_nobody_answers(path, digits):
    port = free_port()
    for there in Connection(port=port), Connection(port=port, is_tracker=True):
        with pytest.raises(RemoteError, match=rf"127.0.0.1:{port}: can't be reached.*refused"):
            deploy(path, [digits[1]], there)
    with pytest.raises(RemoteError, match=r"no\.such\.host\.invalid:9090: can't be reached"):
        deploy(path, [digits[1]], Connection("no.such.host.invalid"))


def test_the_wrong_key_is_named(server, path, digits):
    with pytest.raises(RemoteError, match="can't be reached.*key"):
        deploy(path, [digits[1]], Connection(port=server.port, key="other"))


@pytest.mark.parametrize(
    "answer, message", [(None, "doesn't answer within"), (b"HTTP/1.1", "isn't an RPC server")]
)
def test_other_servers(answer, message, path, digits, monkeypatch):
    """One that hangs, or is busy, and one of another kind."""
    monkeypatch.setattr(connection, "_PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        if answer is not None:
            threading.Thread(
                target=lambda: listening.accept()[0].sendall(answer), daemon=True
            ).start()
        with pytest.raises(RemoteError, match=message):
            deploy(path, [digits[1]], Connection(port=listening.getsockname()[1]))


@pytest.mark.slow
def test_a_full_disk_there(program, path, digits):
    """Files of at most 8 KiB: what TVM's server stores is cut off, and it doesn't notice."""
    serving = program(most_bytes=8192)
    with pytest.raises(RemoteError, match="stored only part of the library.*Make room"):
        deploy(path, [digits[1]], Connection(port=serving.port))
    assert serving.uploaded() == []


def run_in_background(path, x, there) -> tuple[threading.Thread, list]:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            deploy(path, [x], there, number=ENDLESS)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, errors


@pytest.mark.slow
def test_a_server_that_dies_in_mid_run(program, path, digits, same, wait_until):
    """First the process of the session, then the whole server: an error, and nothing left."""
    serving = program()
    there = Connection(port=serving.port)
    thread, errors = run_in_background(path, digits[1], there)
    (session,) = wait_until(lambda: errors or (serving.uploaded() and serving.sessions()))
    session.kill()
    thread.join(30)
    assert isinstance(errors[0], RemoteError) and "failed or stopped" in str(errors[0])
    wait_until(lambda: not serving.uploaded())

    def run():
        try:
            return deploy(path, [digits[1]], there, number=1)
        except RemoteError:
            return None  # Not up again yet.

    assert same(wait_until(run).outputs[0], digits[0](digits[1]))

    thread, errors = run_in_background(path, digits[1], there)
    wait_until(lambda: errors or (serving.uploaded() and serving.sessions()))
    serving.process.kill()
    serving.process.wait()
    thread.join(30)
    assert isinstance(errors[0], RemoteError) and "failed or stopped" in str(errors[0])
    wait_until(lambda: not list(serving.folder.glob("bitenc-serve-*")))
    _, alive = psutil.wait_procs(serving.processes[1:], timeout=10)
    assert alive == []


@pytest.mark.slow
def test_ctrl_c_and_sigterm_leave_nothing(program):
    for number in signal.SIGINT, signal.SIGTERM:
        serving = program()
        serving.sessions()  # Notes the processes.
        serving.process.send_signal(number)
        assert serving.process.wait(20) == 0
        assert not list(serving.folder.glob("bitenc-serve-*"))
        assert psutil.wait_procs(serving.processes[1:], timeout=10)[1] == []


def test_a_session_ends_with_its_time(server, path, digits, wait_until):
    with pytest.raises(RemoteError, match="session has expired"):
        deploy(path, [digits[1]], Connection(port=server.port, timeout=2), number=ENDLESS)
    wait_until(lambda: nothing_left(server))


@pytest.mark.slow
def test_a_board_that_hangs(program, path, digits, monkeypatch, wait_until):
    """As one without power: no answer ever, not even that the connection is gone."""
    monkeypatch.setattr(remote, "_GRACE", 1)
    serving = program()
    thread, errors = run_in_background(path, digits[1], Connection(port=serving.port, timeout=3))
    wait_until(lambda: serving.uploaded() and serving.sessions())
    for process in serving.processes:
        process.suspend()
    thread.join(30)
    assert "gave no answer in 4 seconds" in str(errors[0])


def test_servers_bind_to_loopback_and_refuse_taken_ports(server):
    bound = [
        x.laddr.ip
        for process in [psutil.Process(server.process.pid)]
        for x in process.net_connections("tcp")
        if x.status == psutil.CONN_LISTEN
    ]
    assert bound == ["127.0.0.1"]
    with pytest.raises(RemoteError, match="can't be started.*another --port"):
        Server(port=server.port)
    with pytest.raises(RemoteError, match="can't be (started|listened at)"):
        Server("192.0.2.1", 0)
