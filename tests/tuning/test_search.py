import pytest

pytest.importorskip("xgboost", reason="pip install 'tvm-bitenc[tune]'")

import tvm_ffi

from tvm_bitenc.records.file import Trial
from tvm_bitenc.tuning.model import CostModel, SpeedModel
from tvm_bitenc.tuning.search import Search
from tvm_bitenc.tuning.task import DEFAULT, distance


def test_the_default_is_the_first_and_nothing_comes_twice(tiny_tasks):
    (task,) = tiny_tasks()
    task.candidates = task.candidates[:40]  # Making a kernel of each to the end takes time.
    search, seen = Search(task, SpeedModel(), set(), 0), []
    while batch := search.next_batch(16):
        seen += batch
    assert seen[0] == DEFAULT
    assert len(set(seen)) == len(seen) > 16
    codes = {tvm_ffi.structural_hash(task.kernel(candidate).function) for candidate in seen[1:]}
    assert len(codes) == len(seen) - 1


def test_what_was_tried_before_isnt_tried_again(tiny_tasks):
    (task,) = tiny_tasks()
    first = Search(task, SpeedModel(), set(), 0).next_batch(8)
    second = Search(task, SpeedModel(), set(first), 0).next_batch(8)
    assert not set(first) & set(second)


def test_a_cold_search_starts_near_the_default(tiny_tasks):
    (task,) = tiny_tasks()
    batch = Search(task, SpeedModel(), {DEFAULT}, 0).next_batch(16)
    all_of_them = sorted(distance(task, c) for c in task.candidates)
    near = sum(distance(task, c) <= all_of_them[len(all_of_them) // 4] for c in batch)
    assert near > len(batch) / 2


def trials(task, speedup_of):
    return [
        Trial(**task.keys, strategy=s, tile=t, seconds=1 / speedup_of(s, t), default_seconds=1.0)
        for s, t in task.candidates[1:]
    ]


def test_the_model_learns_and_the_search_follows(tiny_tasks):
    (task,) = tiny_tasks()
    model = SpeedModel()
    model.add(trials(task, lambda strategy, tile: 1.5 if tile.pixels == 3 else 0.5))
    model.train()
    batch = Search(task, model, {DEFAULT}, 0, compares_code=False).next_batch(16)
    assert sum(tile.pixels == 3 for _, tile in batch) >= 10


def test_what_one_layer_taught_serves_another(tiny_tasks):
    small, large = tiny_tasks((2, 2), (6, 12))
    model = SpeedModel()
    model.add(trials(small, lambda strategy, tile: 2.0 if strategy == "lut" else 0.5))
    model.train()
    batch = Search(large, model, {DEFAULT}, 0, compares_code=False).next_batch(16)
    assert sum(strategy == "lut" for strategy, _ in batch) >= 10


def test_failures_count_as_the_slowest(tiny_tasks):
    (task,) = tiny_tasks()
    model = SpeedModel()
    failed = [
        Trial(**task.keys, strategy=s, tile=t, seconds=1.0, default_seconds=1.0, error="crashed")
        for s, t in task.candidates[1:200]
    ]
    model.add(failed)
    assert set(model.values) == {-2.0}


def test_a_model_that_knows_too_little_saves_nothing(tmp_path, tiny_tasks):
    (task,) = tiny_tasks()
    model = SpeedModel()
    CostModel(model, {}).save(str(tmp_path / "model"))
    assert not list(tmp_path.iterdir())
    model.add(trials(task, lambda strategy, tile: 1.5 if tile.pixels == 3 else 0.5))
    model.train()
    CostModel(model, {}).save(str(tmp_path / "model"))
    assert [path.name for path in tmp_path.iterdir()] == ["model.json"]
