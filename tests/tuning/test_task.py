"""Tasks: of the layers of a module, and made from the text of a workload alone."""

import pytest

from benchmarks.workloads import codeword_codes, planes_pipeline, random_codes, tiled_codes
from tvm_bitenc.tuning.synthetic import task_of
from tvm_bitenc.tuning.task import tasks_of

SHARED = {
    "": random_codes,
    "copies=2": tiled_codes(2),
    "rows=16": tiled_codes(4, shuffled=True),
    "codewords=16": codeword_codes(16),
    "codewords=64": codeword_codes(40),
}


@pytest.mark.parametrize("sharing", SHARED)
def test_a_synthetic_task_has_the_space_of_the_real_one(sharing, tiny_module, native, tiny_tasks):
    module = tiny_module((1, 2), codes_of=SHARED[sharing])
    (real,) = tasks_of(module, native, planes_pipeline)
    made = task_of(real.workload, native)
    assert f" {sharing} threads=1" in real.workload or not sharing
    assert made.candidates == real.candidates
    assert (made.shapes, made.default_strategy) == (real.shapes, real.default_strategy)


def test_layers_of_one_kind_are_one_task(tiny_tasks):
    same, other = tiny_tasks((2, 2), (6, 6, 5))
    assert (same.count, other.count) == (2, 1)
