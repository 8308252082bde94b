import json
import math
from dataclasses import replace

import pytest

from tvm_bitenc.kernel.nest.tile import Tile
from tvm_bitenc.records.file import (
    Journal,
    Record,
    RecordError,
    Trial,
    from_json,
    load_records,
    merged,
    read_lines,
    to_json,
    write_lines,
)
from tvm_bitenc.records.workload import target_key, tvm_version
from tvm_bitenc.target import load_target

WORKLOAD = (
    "conv2d 1x6x6x64->64 3x3 W2A2 stride=1,1 padding=1,1,1,1 dilation=1,1 groups=1 from=planes"
    " to=A2 offsets=3,0 threads=1"
)
TARGET = load_target("x86-64-v3")
KEYS = (WORKLOAD, target_key(TARGET), tvm_version())
RECORD = Record(*KEYS, "xnor", Tile(4, 2, 3), 1.25)
TRIAL = Trial(*KEYS, "lut", Tile(2, 1, unroll=8), 1.5e-5, 2e-5)
FAILED = Trial(*KEYS, "int8", Tile(8, 4), math.nan, math.nan, "crashed")


@pytest.mark.parametrize("line", [RECORD, TRIAL])
def test_a_line_survives(line):
    assert from_json(to_json(line)) == line


def test_a_failed_trial_survives_and_is_no_speedup():
    read = from_json(to_json(FAILED))
    assert (read.error, read.speedup, read.tile) == ("crashed", 0.0, FAILED.tile)
    assert math.isnan(read.seconds)


def test_speedup_is_over_the_default():
    assert TRIAL.speedup == pytest.approx(4 / 3)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "other"},
        {"tile": {"pixels": -1}},
        {"tile": {"pixels": 1.5}},
        {"tile": {"width": 1}},
        {"tile": None},
        {"speedup": -1.0},
        {"speedup": "fast"},
        {"strategy": "magic"},
        {"by": "guess"},
        {"workload": "conv3d"},
        {"tvm": 27},
        {"more": 1},
        {"speedup": 0},
        {"tile": {"pixels": 2**40}},
        {"workload": "conv2d " + "x" * 100000},
        *(
            {"workload": WORKLOAD.replace(*each)}
            for each in (
                ("W2", "W999999999"),
                ("64->", "0->"),
                ("1,1 p", "0,1 p"),
                ("groups=1", "groups=7"),
                ("x6x6x", "x6x99999999999x"),
                ("padding=1,1,1,1", "padding=1"),
                ("W2", "W2(1,1,1)"),
                ("to=A2", "to=A9"),
                ("groups=1", "groups=0"),
                ("3x3", "3x0"),
            )
        ),
    ],
)
def test_malformed_lines_are_refused(change):
    content = {**json.loads(to_json(RECORD)), **change}
    with pytest.raises(RecordError, match="Delete that line"):
        from_json(json.dumps(content))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "records.jsonl"
    write_lines([TRIAL, RECORD], path)
    return path


def test_a_torn_last_line_is_left_out_and_written_over(path):
    with path.open("ab") as file:
        file.write(to_json(TRIAL).encode()[:-30])
    assert read_lines(path) == [TRIAL, RECORD]
    journal = Journal(path)
    journal.append(replace(TRIAL, strategy="xnor"))
    journal.close()
    assert read_lines(path) == [TRIAL, RECORD, replace(TRIAL, strategy="xnor")]


def test_lines_about_something_else_are_not_even_parsed(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text("\n".join([to_json(TRIAL), "no json", to_json(RECORD), ""]))
    assert read_lines(path, about=("record", RECORD.target)) == [RECORD]
    with pytest.raises(RecordError, match="line 2"):
        read_lines(path)


def test_a_corrupt_line_is_named(path):
    path.write_text("{}\n" + path.read_text())
    with pytest.raises(RecordError, match=r"records.jsonl, line 1: .*Delete that line"):
        read_lines(path)


@pytest.mark.parametrize(
    "content",
    [
        b"\x00\xff\n", b"[1]\n", b"\x80\x04K\x01.\n", b"\n", b"[" * 5000 + b"\n",
        b'{"a":' * 5000 + b"\n", b"9" * 5000 + b"\n", b'"' + b"x" * 70000 + b'"\n',
        b'{"kind": "trial", "kind": "trial"}\n', b"\xef\xbb\xbf{}\n", b'{"kind": []}\n',
    ],
)  # fmt: skip
def test_what_isnt_json_is_named(path, content):
    path.write_bytes(content)
    with pytest.raises(RecordError, match="line 1"):
        read_lines(path)


def test_one_writer_at_a_time(path):
    journal = Journal(path)
    with pytest.raises(RecordError, match="another tuner"):
        Journal(path)
    journal.close()
    Journal(path).close()


def test_merging_keeps_every_trial_and_the_latest_record():
    later = replace(RECORD, speedup=1.1)
    assert merged([TRIAL, RECORD, TRIAL, later]) == [TRIAL, later]


def warned(database, target):
    messages = []
    return load_records(database, target, messages.append), messages


def test_records_hold_for_their_cpu_and_release(path):
    records, messages = warned(path, TARGET)
    assert records.find(WORKLOAD) == RECORD and not messages
    assert records.find(WORKLOAD, "lut") is None and records.find("other") is None
    records, messages = warned(path, load_target("x86-64-v4"))
    assert records.find(WORKLOAD) is None
    assert "x86-64-v3" in messages[0] and "default schedule" in messages[0]


def test_a_record_of_another_release_is_said_and_left_out(path):
    write_lines([replace(RECORD, tvm="0.26")], path)
    records, messages = warned(path, TARGET)
    assert not records.by_workload and "TVM 0.26" in messages[0]


@pytest.mark.parametrize("content", ["{", None])
def test_an_unreadable_file_is_said_and_left_out(path, content):
    path.unlink() if content is None else path.write_text(content + "\n")
    records, messages = warned(path, TARGET)
    assert not records.by_workload and "default schedule" in messages[0]


def test_a_folder_holds_a_file(path):
    path.rename(path.parent / "bitenc.jsonl")
    assert warned(path.parent, TARGET)[0].find(WORKLOAD) == RECORD


def test_false_is_no_records():
    assert not load_records(False, TARGET).by_workload


def test_shipped_records_are_well_formed():
    load_records(None, TARGET, lambda message: pytest.fail(message))


def test_true_is_the_records_that_ship():
    assert load_records(True, TARGET) == load_records(None, TARGET)
