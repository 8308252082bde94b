"""A folder of MetaSchedule's: what TVM writes is taken, anything else refused by file and line."""

import pytest
import tvm
from tvm import te, topi
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms

from tvm_bitenc.records.file import RecordError
from tvm_bitenc.records.metaschedule import check_database


@pytest.fixture
def folder(tmp_path):
    """One workload with one record."""
    data = te.placeholder((4,), "float32")
    mod = tvm.IRModule({"main": te.create_prim_func([data, topi.add(data, 1.0)])})
    database = ms.database.JSONDatabase(work_dir=str(tmp_path))
    workload = database.commit_workload(mod)
    trace, target = Schedule(mod).trace, tvm.target.Target("llvm")
    arguments = ms.arg_info.ArgInfo.from_prim_func(mod["main"])
    database.commit_tuning_record(
        ms.database.TuningRecord(trace, workload, [1.0], target, arguments)
    )
    return tmp_path


def test_what_metaschedule_writes_is_taken(folder):
    for name in ("database_workload.json", "database_tuning_record.json"):
        assert (folder / name).read_text()
    check_database(folder)


def test_missing_files_are_fine(tmp_path):
    check_database(tmp_path)


@pytest.mark.parametrize(
    "name, line",
    [
        ("database_workload.json", "{}"),
        ("database_workload.json", '["not a hash", ""]'),
        ("database_workload.json", '["1"]'),
        ("database_tuning_record.json", "[0"),
        ("database_tuning_record.json", '["0", []]'),
        ("database_tuning_record.json", "[-1, []]"),
    ],
)
def test_other_lines_are_refused(name, line, folder):
    with (folder / name).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(RecordError, match=rf"{name}, line 2.*Delete it"):
        check_database(folder)
