"""What a terminal shows while a model is compiled."""

from pathlib import Path

from rich.progress import Progress
from tvm import relax, transform

import tvm_bitenc as be
from tvm_bitenc.cli import libraries
from tvm_bitenc.target import load_target
from tvm_bitenc.transform.pipeline import default_pipeline


def test_passes_and_then_machine_code(module_of, monkeypatch):
    seen = []

    class Recorded(Progress):
        def update(self, task_id, **fields):
            seen.append((fields["completed"], fields["description"]))

    monkeypatch.setattr(libraries, "Progress", Recorded)
    names = default_pipeline(load_target("native", 1)).names
    mod = module_of([(2, 3)], lambda b, x: b.emit(relax.op.add(x, x)))
    with libraries.compiling(Path("net.onnx"), names):
        be.build(mod, threads=1)
    assert [description for _, description in seen] == [*names, "machine code, by LLVM"]
    steps = [completed for completed, _ in seen]
    assert steps == sorted(steps) and steps[-1] == len(names)
    assert not transform.PassContext.current().config
