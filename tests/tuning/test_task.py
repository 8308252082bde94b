"""Tasks: of the layers of a module, and made from the text of a workload alone."""

from benchmarks.workloads import planes_pipeline
from tvm_bitenc.tuning.synthetic import task_of
from tvm_bitenc.tuning.task import tasks_of


def test_a_synthetic_task_has_the_space_of_the_real_one(tiny_module, native, tiny_tasks):
    (real,) = tasks_of(tiny_module(), native, planes_pipeline)
    made = task_of(real.workload, native)
    assert made.candidates == real.candidates
    assert (made.shapes, made.default_strategy) == (real.shapes, real.default_strategy)


def test_layers_of_one_kind_are_one_task(tiny_tasks):
    same, other = tiny_tasks((2, 2), (6, 6, 5))
    assert (same.count, other.count) == (2, 1)
