"""`benchmarks.arm` on a tiny layer, and what it counts with."""

# ruff: noqa: E402  What may be missing is asked for first.
import json

import numpy as np
import pytest

for package in ("onnxruntime", "onnx", "rich"):
    pytest.importorskip(package, reason="pip install 'tvm-bitenc[bench]'")

from benchmarks import arm, report
from benchmarks.emulated import missing_model, missing_tools
from benchmarks.emulated.cycles import estimated_cycles
from benchmarks.emulated.program import Plan, Program
from benchmarks.workloads import Workload
from tvm_bitenc.target import load_target
from tvm_bitenc.te.function import prim_func

TINY = Workload("tiny", "3x3", 64, 64, 4, 3, 1, 1)


@pytest.fixture
def target():
    found = load_target("cortex-a72", threads=1)
    if reason := missing_tools(found) or missing_model(found):
        pytest.skip(reason)
    return found


@pytest.mark.slow
def test_counts_print_and_report(target, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(arm, "WORKLOADS", [TINY])
    results, page = tmp_path / "arm.json", tmp_path / "page.md"
    command = ["--layer", "tiny", "--targets", target.name, "--bits", "1,1"]
    records = arm.main([*command, "--json", str(results)])
    assert sorted(record["strategy"] for record in records) == ["int8", "lut", "xnor"]
    cycles = [record["cycles"] for record in records]
    assert cycles == sorted(cycles) and min(cycles) > 0
    assert [record["strategy"] for record in records if record["auto"]] == ["xnor"]
    printed = capsys.readouterr().out
    assert "xnor *" in printed and all(name in printed for name in arm.PEERS)
    assert json.loads(results.read_text())["arm"] == records
    page.write_text("# Text\n")
    for _ in range(2):  # The second time replaces the tables of the first.
        report.main([str(results), "--page", str(page)])
        text = page.read_text()
        assert text.startswith("# Text\n") and text.count("| xnor * |") == 1
        assert f"{records[0]['instructions']:.2f}" in text


def test_wrong_layers_are_named():
    with pytest.raises(SystemExit, match="3x3 64 @56"):
        arm.main(["--layer", "no such layer"])


def test_blocks_are_all_that_ran(target):
    """Instructions of blocks add up to those that QEMU counts one by one."""
    from tvm import te

    values = np.arange(24, dtype=np.int32).reshape(4, 6)
    double = prim_func(lambda x: te.compute(x.shape, lambda *i: x[i] + x[i]), [values])
    program = Program({"double": double}, target)
    plan = Plan(program)
    tensors = [plan.tensor(values), plan.output(values.shape, "int32")]
    plan.call("double", tensors)
    run = plan.run(tensors[1:], with_blocks=True)
    assert np.array_equal(run.outputs[0], 2 * values)
    (instructions,) = run.instructions
    # From the end of roi_begin's first block to the beginning of roi_end's.
    ran = sum(block.instructions * block.times for block in run.blocks)
    assert abs(ran - instructions) < 8
    cycles = estimated_cycles(program, run.blocks)
    assert instructions / 3 <= cycles < 5 * instructions
