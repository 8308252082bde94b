import pytest
import tvm
from tvm import s_tir

pytest.importorskip("xgboost", reason="pip install 'tvm-bitenc[tune]'")

from tvm_bitenc.tuning.carrier import candidate_of, schedule_of, workload_key, workload_module
from tvm_bitenc.tuning.task import DEFAULT


def test_a_trace_says_the_candidate(tiny_tasks):
    """Replayed on the workload it gives the candidate: MetaSchedule's database holds traces."""
    (task,) = tiny_tasks()
    for candidate in (DEFAULT, *task.candidates[1::97]):
        schedule = schedule_of(task, candidate)
        assert candidate_of(schedule.mod) == candidate
        again = s_tir.Schedule(workload_module(task))
        schedule.trace.apply_to_schedule(again, remove_postproc=False)
        assert candidate_of(again.mod) == candidate


def test_a_trace_has_the_name_of_the_strategy(tiny_tasks):
    """Not its number, which another release might give to another strategy."""
    (task,) = tiny_tasks()
    trace = schedule_of(task, task.candidates[1]).trace.as_json()
    assert task.candidates[1][0] in str(trace)


def test_a_workload_names_itself(tiny_tasks):
    (task,) = tiny_tasks()
    assert workload_key(workload_module(task)) == task.workload
    assert isinstance(workload_module(task), tvm.IRModule)
