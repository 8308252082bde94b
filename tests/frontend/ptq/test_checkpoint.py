"""Checkpoints: written whole or not at all, and refused where they don't belong."""

import json

import numpy as np
import pytest

from tvm_bitenc.errors import BitencError
from tvm_bitenc.frontend.ptq.checkpoint import Checkpoint, hash_of, pack_array, unpack_array


def test_steps_survive_an_interruption(tmp_path):
    path = tmp_path / "run.json"
    with pytest.raises(KeyboardInterrupt), Checkpoint(path, "key") as checkpoint:
        assert checkpoint.get("a", lambda: 0.1, float) == 0.1
        raise KeyboardInterrupt
    with Checkpoint(path, "key") as checkpoint:
        assert checkpoint.get("a", lambda: 1 / 0, float) == 0.1
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "run.json"
    with Checkpoint(path, "key") as checkpoint:
        checkpoint.get("a", lambda: 0.5, float)
    before = path.read_text()
    checkpoint.steps["b"] = object()
    with pytest.raises(TypeError):
        checkpoint.save()
    assert path.read_text() == before


def test_without_a_path_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Checkpoint(None, "key") as checkpoint:
        checkpoint.get("a", dict, dict)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "3", '{"version": 1}', "null", "\x00\xff", '{"version": 1, "key": "k"}',
        "[" * 5000, '{"a":' * 5000, '{"version": 1, "key": "key", "steps": []}',
        '{"version": 1, "key": "key", "steps": {"a": NaN}}',
        '{"version": 1, "key": "key", "steps": {"a": [1]}}',
        '{"version": 1, "key": "key", "steps": {"a": 1.0, "a": 2.0}}',
        '{"version": 1, "key": "key", "steps": {"a": {"bias": {"dtype": "O", "shape": [1]}}}}',
    ],
)  # fmt: skip
def test_damaged_files_are_named(text, tmp_path):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(BitencError, match=r"checkpoint '.*run\.json'.*Delete it or give"):
        Checkpoint(path, "key")


def test_binary_rubbish_and_folders_are_named(tmp_path):
    path = tmp_path / "run.json"
    path.write_bytes(b"\xff\xfe\x00" * 9)
    for wrong in (path, tmp_path):
        with pytest.raises(BitencError, match=r"can't be read|isn't JSON"):
            Checkpoint(wrong, "key")


@pytest.mark.parametrize("change", [dict(key="other"), dict(version=2)])
def test_foreign_files_are_refused(change, tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"version": 1, "key": "key", "steps": {}} | change))
    with pytest.raises(BitencError, match=r"another model, other calibration data"):
        Checkpoint(path, "key")


def test_steps_of_another_type_are_refused(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"version": 1, "key": "key", "steps": {"a": 0.5}}))
    with pytest.raises(BitencError, match=r"damaged at 'a'"):
        Checkpoint(path, "key").get("a", dict, dict)


@pytest.mark.parametrize(
    "array", [np.float32([[0.1, -0.0], [np.pi, 1e-40]]), np.arange(3)], ids=["float32", "int64"]
)
def test_arrays_keep_every_bit(array):
    packed = json.loads(json.dumps(pack_array(array)))
    found = unpack_array(packed, str(array.dtype), array.shape)
    assert found.tobytes() == array.tobytes() and found.flags.writeable
    for wrong in (packed | {"data": "AAAA"}, packed | {"shape": [7]}, {}, None):
        with pytest.raises(BitencError, match="Delete it and start again"):
            unpack_array(wrong, str(array.dtype), array.shape)


def test_hashes_tell_contents_apart():
    parts = [["ab", "c"], ["a", "bc"], [np.zeros(2)], [np.zeros((2, 1))], [np.zeros(2, np.float32)]]
    assert len({hash_of(part) for part in parts}) == len(parts)
    assert hash_of(parts[0]) == hash_of(["ab", b"c"])
