"""Files appear whole or not at all; what a dead process left is removed, and nothing else."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import tvm_bitenc
from tvm_bitenc.errors import BitencError, LibraryError
from tvm_bitenc.files import scratch_folder, written_whole

# Whoever runs the tests may ignore signals, as nohup does, and children inherit that.
WRITER = """
import signal, sys, time
from pathlib import Path
from tvm_bitenc.files import written_whole

signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
with written_whole(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that has half written ``net.so``."""
    environment = {**os.environ, "PYTHONPATH": str(Path(tvm_bitenc.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "net.so")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.communicate()


def test_a_file_is_there_when_it_is_whole(tmp_path):
    path = tmp_path / "net.so"
    path.write_text("old")
    with written_whole(path) as temporary:
        assert temporary.name == "net.so" and temporary.parent.parent == tmp_path
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["net.so"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file(error, tmp_path):
    path = tmp_path / "net.so"
    path.write_text("old")
    with pytest.raises(error), written_whole(path) as temporary:
        temporary.write_text("new")
        raise error
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["net.so"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_leave_nothing(number, writer, tmp_path):
    writer.send_signal(number)
    _, errors = writer.communicate(timeout=60)
    assert writer.returncode == -number and os.listdir(tmp_path) == []
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)


def test_the_next_writer_removes_what_a_killed_one_left(writer, tmp_path):
    (left,) = os.listdir(tmp_path)
    with written_whole(tmp_path / "net.so") as temporary:  # The other one still writes.
        temporary.write_text("new")
    assert sorted(os.listdir(tmp_path)) == [left, "net.so"]
    writer.kill()
    writer.wait()
    for others in ("other.so", "net.so"):
        assert left in os.listdir(tmp_path)
        with written_whole(tmp_path / others) as temporary:
            temporary.write_text("new")
    assert sorted(os.listdir(tmp_path)) == ["net.so", "other.so"]


def test_nothing_else_is_removed(tmp_path):
    (tmp_path / ".net.so.mine").mkdir()
    (tmp_path / ".net.so.file.part").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").write_text("mine")
    (tmp_path / ".net.so.link.part").symlink_to(tmp_path / "folder")
    before = sorted(os.listdir(tmp_path))
    with scratch_folder(tmp_path, "net.so"):
        pass
    assert sorted(os.listdir(tmp_path)) == before and (tmp_path / "folder" / "kept").exists()


def test_many_writers_of_one_file(tmp_path):
    path, errors = tmp_path / "net.so", []

    def write(i):
        try:
            for _ in range(30):
                with written_whole(path) as temporary:
                    temporary.write_text(str(i) * 1000)
                assert len(set(path.read_text())) == 1
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and os.listdir(tmp_path) == ["net.so"]


def test_signals_of_others_are_left_to_them(tmp_path):
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    try:
        with written_whole(tmp_path / "net.so") as temporary:
            os.kill(os.getpid(), signal.SIGTERM)
            temporary.write_text("whole")
        assert received == [signal.SIGTERM] and signal.getsignal(signal.SIGTERM) is not before
    finally:
        signal.signal(signal.SIGTERM, before)
    with scratch_folder(tmp_path, "a"), scratch_folder(tmp_path, "b"):
        pass
    assert signal.getsignal(signal.SIGTERM) is before


def test_names_of_any_length(tmp_path):
    path = tmp_path / ("\N{SNOWMAN}" * 84 + ".so")
    with written_whole(path) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole"


@pytest.mark.parametrize("kind", [BitencError, LibraryError])
def test_places_that_cannot_be_written(kind, tmp_path):
    (tmp_path / "folder").mkdir()
    for name, cure in (("missing/net.so", "another folder"), ("folder", "another name")):
        refused = pytest.raises(kind, match=rf"{name}: can't be written.*Use {cure}")
        with refused, written_whole(tmp_path / name, kind) as temporary:
            temporary.write_text("whole")
    assert os.listdir(tmp_path) == ["folder"]
