import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("xgboost", reason="pip install 'tvm-bitenc[tune]'")

import tvm_bitenc as be
from benchmarks.workloads import codeword_codes, planes_pipeline, tiled_codes
from tvm_bitenc.errors import BitencError
from tvm_bitenc.records.file import Journal, Record, Trial, read_lines
from tvm_bitenc.tuning.model import SpeedModel
from tvm_bitenc.tuning.progress import Silent
from tvm_bitenc.tuning.session import Session
from tvm_bitenc.tuning.task import DEFAULT

ROOT = Path(__file__).parents[2]


def tune(mod, database, trials, **options):
    options = {"threads": 1, "pipeline": planes_pipeline, "progress": False, **options}
    return be.tune(mod, "native", trials, database, warm_start=False, near_limit=9.0, **options)


@pytest.fixture(scope="module")
def tuned(tiny_module, tiny_tasks, tmp_path_factory):
    """Folder of a run of 6 trials, and its results."""
    folder = tmp_path_factory.mktemp("tuned")
    return folder, tune(tiny_module(), folder, 6)


def test_a_run_on_this_machine(tuned):
    folder, (result,) = tuned
    lines = read_lines(folder)
    trials = [line for line in lines if isinstance(line, Trial)]
    assert len(trials) == result.trials == 6
    assert trials[0].candidate == DEFAULT and len({t.candidate for t in trials}) == 6
    assert not [trial.error for trial in trials if trial.error]
    assert result.speedup >= 1 and result.gmacs > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "sharing, codes_of",
    [("rows=16", tiled_codes(4, shuffled=True)), ("codewords=16", codeword_codes(16))],
)
def test_layers_that_share_weights(sharing, codes_of, tiny_module, tiny_tasks, tmp_path):
    """What they share is part of their text, and every strategy that they have is tried."""
    (task,) = tiny_tasks((1, 2), (6,), codes_of)
    (result,) = tune(tiny_module((1, 2), (6,), codes_of), tmp_path, 5)
    trials = [line for line in read_lines(tmp_path) if isinstance(line, Trial)]
    assert len(trials) == result.trials == 5 and not [x.error for x in trials if x.error]
    assert {f" {sharing} " in line.workload for line in read_lines(tmp_path)} == {True}
    assert ("codebook" in task.spaces) == (sharing == "codewords=16")


def test_metaschedules_database_knows_the_candidates(tuned):
    """Its files in the same folder hold the same trials, as traces that can be replayed."""
    from tvm.s_tir import meta_schedule as ms

    from tvm_bitenc.tuning.carrier import candidate_of, workload_key

    database = ms.database.JSONDatabase(work_dir=str(tuned[0]))
    found = []
    for record in database.get_all_tuning_records():
        schedule = record.as_measure_candidate().sch
        found.append(candidate_of(schedule.mod))
        assert workload_key(record.workload.mod).startswith("conv2d 1x6x6x64->64")
    trials = [line.candidate for line in read_lines(tuned[0]) if isinstance(line, Trial)]
    assert sorted(map(str, found)) == sorted(map(str, trials))


def test_a_build_with_the_records_is_exact(tuned, tiny_module):
    planes = np.random.default_rng(0).integers(0, 2**64, (1, 6, 6, 2, 1), np.uint64)
    outputs = [
        be.build(tiny_module(), threads=1, database=d, pipeline=planes_pipeline)(planes)
        for d in (False, tuned[0])
    ]
    np.testing.assert_array_equal(*outputs)


@pytest.fixture
def session_of(tiny_tasks, no_builders, sleeping_devices, tmp_path):
    """``session_of(trials, ...)``: a session whose devices only sleep."""

    def make(trials, bits=(2, 2), sizes=(6,), count=4, seconds=0.01, speedup=1.0, limit=9.0):
        journal = Journal(tmp_path / "r.jsonl")
        device = sleeping_devices(count, seconds, speedup)
        tasks = tiny_tasks(bits, sizes)
        return Session(tasks, journal, device, Silent(), trials, limit, None, 0, pool=no_builders())

    return make


def test_tuning_goes_on_where_it_was(session_of, tmp_path):
    session_of(5).run()
    before = read_lines(tmp_path / "r.jsonl")
    session_of(5).run()
    assert read_lines(tmp_path / "r.jsonl") == before
    (result,) = session_of(9).run()
    trials = [line for line in read_lines(tmp_path / "r.jsonl") if isinstance(line, Trial)]
    assert result.trials == len(trials) == len({trial.candidate for trial in trials}) == 9


def test_a_winner_becomes_a_record_and_a_loser_doesnt(session_of, tmp_path):
    (result,) = session_of(4, speedup=1.2).run()
    records = [line for line in read_lines(tmp_path / "r.jsonl") if isinstance(line, Record)]
    assert records and result.speedup == pytest.approx(1.2)
    assert records[0].strategy in ("xnor", "lut", "int8")
    (tmp_path / "r.jsonl").unlink()
    (result,) = session_of(4, speedup=0.99).run()
    assert result.speedup == 1.0
    assert not [line for line in read_lines(tmp_path / "r.jsonl") if isinstance(line, Record)]


def test_a_layer_near_the_limit_is_left_alone(session_of):
    session = session_of(64, limit=0.9)
    (best,) = session.best.values()
    best.limit = 1e-9
    assert session.run()[0].trials < 64


def test_stopping_keeps_what_was_measured(session_of, tmp_path):
    session = session_of(400, sizes=(6, 5), seconds=0.05)
    record = session._record

    def stop_after_some(*arguments):
        record(*arguments)
        if len(session.journal.lines) == 20:
            session.stop()

    session._record = stop_after_some
    results = session.run()
    counted = sum(result.trials for result in results)
    assert 20 <= counted < 200
    assert len(read_lines(tmp_path / "r.jsonl")) == counted


@pytest.mark.slow
def test_a_hundred_devices_keep_the_scheduler_idle(session_of):
    """Wall time is that of the measurements, but for less than 10 %."""
    sizes, seconds, count = tuple(range(4, 10)), 5.0, 100
    session = session_of(64, sizes=sizes, count=count, seconds=seconds)
    start, cpu = time.perf_counter(), time.process_time()
    session._compare = lambda: None
    results = session.run()
    wall, busy = time.perf_counter() - start, time.process_time() - cpu
    trials = sum(result.trials for result in results)
    assert trials == 64 * len(sizes)
    assert busy < 0.1 * wall, (busy, wall)
    assert wall < 2 * trials * seconds / count + 2 * seconds, (busy, wall)


def test_no_tasks_are_no_results(tmp_path):
    session = Session([], Journal(tmp_path / "r"), None, Silent(), 4, 1.0, None, 0)
    assert session.run() == []


def test_wrong_options_are_named(tiny_module, tmp_path):
    with pytest.raises(BitencError, match="0 isn't a number of trials"):
        tune(tiny_module(), tmp_path, 0)
    with pytest.raises(BitencError, match="isn't rpc://host:port/key"):
        tune(tiny_module(), tmp_path, 1, runner="tracker:9190")
    (tmp_path / "bad.jsonl").write_text("{}\n")
    with pytest.raises(BitencError, match=r"bad.jsonl, line 1"):
        tune(tiny_module(), tmp_path / "bad.jsonl", 1)


def test_training_needs_some_trials():
    model = SpeedModel()
    model.train()
    assert model.booster is None


def test_a_strategy_without_trials_is_judged_by_its_cost(tiny_tasks):
    """What others taught of `lut` is no better beside codewords than beside the best of them."""
    (task,) = tiny_tasks((1, 2), (6,), codeword_codes(16))
    if "codebook" not in task.spaces:
        pytest.skip("no vectors that look up codewords: run on a CPU with AVX2 or NEON")
    task.costs.update(xnor=1.6, lut=1.2, int8=2.0, codebook=1.0)
    tiles = {name: [c for c in task.candidates if c[0] == name] for name in task.spaces}
    model = SpeedModel()
    others = [candidate for name in ("xnor", "lut") for candidate in tiles[name][:12]]
    model.add(
        Trial(**task.keys, strategy=s, tile=t, seconds=1.0, default_seconds=1.0) for s, t in others
    )
    model.train()
    default = "codebook", task.spaces["codebook"].default
    found = model.predict(task, [default, *tiles["lut"][:3], tiles["int8"][0]])
    assert found[0] == 0
    np.testing.assert_allclose(found[1:4], -np.log(1.2), atol=0.02)
    assert found[4] < -0.4


RUN = """
import sys
sys.path[:0] = {path!r}
from tests.tuning.conftest import NoBuilders, SleepingDevices, TINY
from benchmarks.tune import layers_module
from benchmarks.workloads import planes_pipeline
from tvm_bitenc.target import load_target
from tvm_bitenc.tuning.progress import Silent
from tvm_bitenc.records.file import Journal
from tvm_bitenc.tuning.session import Session
from tvm_bitenc.tuning.api import _stopping
from tvm_bitenc.tuning.task import tasks_of

class Telling(Silent):
    def trial(self, task, best, per_task):
        print(best.trials, flush=True)

tasks = tasks_of(layers_module([TINY], (2, 2)), load_target("native", 1), planes_pipeline)
session = Session(tasks, Journal(__import__("pathlib").Path({database!r})),
                  SleepingDevices(2, 0.02), Telling(), {trials}, 9.0, None, 0, pool=NoBuilders())
with _stopping(session.stop):
    session.run()
print("over", flush=True)
"""


def start(database, trials):
    code = RUN.format(path=[str(ROOT)], database=str(database), trials=trials)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_ctrl_c_ends_in_order(tmp_path, tiny_tasks):
    process = start(tmp_path / "r.jsonl", 400)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[0].split()
    assert process.returncode == 0 and said[-1] == "over"
    assert len(read_lines(tmp_path / "r.jsonl")) == int(said[-2])


@pytest.mark.slow
def test_killed_at_any_moment_nothing_is_lost(tmp_path, tiny_tasks):
    """Every trial that was reported is in the file, ten times over, and tuning goes on."""
    rng, database, done = np.random.default_rng(0), tmp_path / "r.jsonl", 0
    for _ in range(10):
        process = start(database, 400)
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.6))
        process.kill()
        reported = [int(line) for line in process.communicate()[0].split() if line.isdigit()]
        trials = [line for line in read_lines(database) if isinstance(line, Trial)]
        assert len(trials) >= max([*reported, done + 1])
        assert len({trial.candidate for trial in trials}) == len(trials)
        done = len(trials)
    assert start(database, done + 5).wait(timeout=120) == 0
    assert len([x for x in read_lines(database) if isinstance(x, Trial)]) == done + 5
