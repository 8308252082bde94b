"""
Extending: a target, a schedule rule, a quantizer spelling
==========================================================

For the engineer who wants to add a machine: nothing in the package is edited here. A target is a
TOML file, a schedule rule a function, a spelling of a quantizer another. Each is shown to be used.

    pip install 'tvm-bitenc[tutorials]'
    python tutorials/09_extending.py
"""

# %%
# A network that the package doesn't know
# ---------------------------------------
# Its layers take signs written as x / \|x\|. That is a quantizer of 1 bit, but no spelling of one
# that the package knows, so at first both layers stay float, and the report says why.

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from digits import OUT
from matplotlib import pyplot
from torch import nn
from tvm import s_tir

import tvm_bitenc as be
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.op.packed import packed_conv2d_op, unscheduled_compute
from tvm_bitenc.op.quantize import quantize
from tvm_bitenc.op.registration import constant_value, is_call_to
from tvm_bitenc.schedule import Kernel, RuleSet, prim_func
from tvm_bitenc.target import load_target, native_target
from tvm_bitenc.transform import quantizer_spelling
from tvm_bitenc.transform.analysis.float32 import op_name


class Signs(nn.Module):
    """Two convolutions of signs."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(64, 64, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(64, 64, 3, padding=1, bias=False)

    def forward(self, x):
        for conv in (self.conv1, self.conv2):
            a, w = (v / v.abs() for v in (x + 0.5, conv.weight))
            x = nn.functional.conv2d(a, w, padding=1)
        return x


torch.manual_seed(0)
model, x = Signs().eval(), torch.randn(1, 64, 14, 14)
module, expected = be.from_torch(model, (x,)), model(x).detach().numpy()
report = be.build(module).report()
print(report)
assert not report.layers and len(report.float_layers) == 2

# %%
# A quantizer spelling
# --------------------
# A function from a call in the module to the quantizer that it is, or None. It claims equality, so
# look closely: what is divided must be what the size is of.


@quantizer_spelling
def divided_by_its_size(call, graph):
    """x / |x| is the sign: 1 bit, the levels -1 and 1."""
    if op_name(call) != "relax.divide":
        return None
    size = graph.definition(call.args[1])
    if op_name(size) != "relax.abs":
        return None
    whole, part = (graph.definition(value) for value in (call.args[0], size.args[0]))
    return quantize(call.args[0], Encoding.symmetric(1, 2.0)) if whole.same_as(part) else None


lib = be.build(module)
print(lib.report())
assert np.array_equal(lib(x), expected)
assert [(row.weight_bits, row.act_bits) for row in lib.report().layers] == [(1, 1)] * 2

# %%
# A target
# --------
# A TOML file: the CPU as LLVM knows it, and the rule sets to try in order. ``generic`` has plain
# schedules for any CPU.

TOML = """
description = "This machine, with rules of our choice"

[tvm]
mcpu = "{cpu}"

[schedule]
rules = {rules}
"""
folder = Path(tempfile.mkdtemp(prefix="bitenc-tutorial-"))


def target_file(name, *rules):
    """Write a target and return its path."""
    path = folder / f"{name}.toml"
    cpu = native_target().tvm_target.attrs["mcpu"]
    path.write_text(TOML.format(cpu=cpu, rules=json.dumps(rules)))
    return path


plain = be.build(module, target=target_file("plain", "generic"))
assert np.array_equal(plain(x), expected)

# %%
# A schedule rule
# ---------------
# A function from a packed op to a kernel, or None to decline; what it declines, the next set in the
# target's list takes. This one takes the plain definition of the convolution, whose integers are
# exact, and unrolls its innermost loop. Rules form a `RuleSet`, a value; the target's file names
# it, and `load_target` is given it. A real instruction set is an `Isa`, of which
# `schedule.vector.vector_rules` makes the rule set: `tvm_bitenc/schedule/avx2.py` is one.

used = []


def unrolled(call, _target):
    """A packed convolution whose last loop is unrolled."""
    if not is_call_to(call, packed_conv2d_op):
        return None
    compute, inputs = unscheduled_compute(call)
    schedule = s_tir.Schedule(prim_func(compute, inputs))
    block = schedule.get_child_blocks(schedule.get_sblock("root"))[-1]
    schedule.unroll(schedule.get_loops(block)[-1])
    used.append(str(call.attrs["layer"]))
    return Kernel(schedule.mod["main"], [constant_value(value) for value in inputs[1:]])


board = RuleSet("board", rules=(unrolled,))
target = load_target(target_file("board", "board", "generic"), rule_sets=[board])
ours = be.build(module, target=target)
assert np.array_equal(ours(x), expected) and len(used) == 2
print("our rule made the kernels of", used)

# %%
# The same integers from all three; the speed is what rules are for.

times = {
    "native rules": lib.benchmark(x, number=5, repeat=5).best,
    "generic rules": plain.benchmark(x, number=5, repeat=5).best,
    "our rule": ours.benchmark(x, number=5, repeat=5).best,
}
figure, axis = pyplot.subplots(figsize=(6, 2.6))
bars = axis.barh(list(times), [1e6 * seconds for seconds in times.values()])
axis.bar_label(bars, fmt=" %.0f us")
axis.set(xscale="log", xlabel="microseconds a run, this machine", title="equal numbers, all three")
figure.tight_layout()
OUT.mkdir(exist_ok=True)
figure.savefig(OUT / "extending.png", dpi=110)
print("The picture:", OUT / "extending.png")
