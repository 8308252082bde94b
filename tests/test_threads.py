"""The size of TVM's thread pool."""

import os

from tvm_bitenc.threads import physical_cores


def machine(folder, siblings):
    for i, text in enumerate(siblings):
        topology = folder / f"cpu{i}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(text + "\n")
    (folder / "cpufreq").mkdir()
    return folder


def test_threads_of_one_core_count_once(tmp_path):
    assert physical_cores(machine(tmp_path, ["0,2", "1,3", "0,2", "1,3"])) == 2


def test_cores_of_one_thread_all_count(tmp_path):
    assert physical_cores(machine(tmp_path, ["0", "1", "2"])) == 3


def test_all_cpus_where_the_system_does_not_say(tmp_path):
    assert physical_cores(tmp_path) == os.cpu_count()
