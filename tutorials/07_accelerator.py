"""
The accelerator: compile, simulate, look at the timeline, change the array
==========================================================================

The digits network with 2 bits, on the accelerator in `targets/vta/rtl`: its numbers against the
CPU's, what each layer costs, what load, compute and store do when, and what a larger or smaller
array would gain. `docs/accelerator.md` says how the machine works.

    pip install 'tvm-bitenc[tutorials]'     # and, for the Verilog: apt install verilator g++
    python tutorials/07_accelerator.py
"""

# %%
# A network
# ---------
# First in float, then with 2-bit weights and activations, a few epochs each. A program runs one
# sample, and a batch is one run after another; so the module is imported with one image.

import shutil

import digits
import numpy as np
import torch
from digits import OUT
from matplotlib import pyplot
from rich.console import Console
from rich.table import Table

import tvm_bitenc as be
from tvm_bitenc.data import data_folder
from tvm_bitenc.simulate.picture import draw_timeline
from tvm_bitenc.simulate.programs import layer_counters, parts_of, programs_of
from tvm_bitenc.target import load_target
from tvm_bitenc.vta.isa import disassemble

torch.set_num_threads(1)
OUT.mkdir(exist_ok=True)
console = Console(width=110)
data = digits.load_digits()
_, _, images, labels = data
model = digits.train_route([2], data, epochs=4, low_epochs=3)["W2A2"]
print(f"W2A2: {digits.accuracy(model, images, labels):.2%} of {len(images)} held-out images")
mod = be.from_torch(model, (images[:1],))

# %%
# Compile and run
# ---------------
# ``target="vta"`` is all it takes. Convolutions, max pooling and the classifier become a program of
# the accelerator, in whose memory all planes between them stay; what comes in floats stays on the
# CPU. Without more said, a simulator in numpy runs the program. Its logits are the CPU build's, to
# the bit.

IMAGES = 20
cpu, lib = be.build(mod), be.build(mod, target="vta")
for i in range(IMAGES):
    image = images[i : i + 1]
    assert np.array_equal(lib(image), cpu(image)), f"image {i} has other logits"
print(f"accelerator and CPU agree on all logits of {IMAGES} images")

# %%
# The report adds cycles, utilization and memory traffic to each layer. Utilization is the share of
# the array's one-bit multiply-accumulates that the layer needs. The cycles are those of a model.
#
# `conv3` costs most, as the timeline below shows why. The first layer has 8 bits, so 64 pairs of
# planes. A window has 9 bits of each plane; those of several planes lie side by side in a word, so
# that fewer words meet.

report = lib.report()
print(report)

# %%
# The Verilog itself
# ------------------
# ``simulator="verilog"`` runs the hardware's source, cycle by cycle, under Verilator. The first
# time it is built, and kept in the cache. After a run, the report has the cycles that it counted.

missing = [tool for tool in ("verilator", "g++") if shutil.which(tool) is None]
if missing:
    print(f"{' and '.join(missing)} missing: apt install verilator g++, then run this again")
else:
    verilog = be.build(mod, target="vta", simulator="verilog")
    assert np.array_equal(verilog(images[:1]), cpu(images[:1])), "the Verilog has other logits"
    print("Verilog and CPU agree on all logits of an image")
    table = Table("layer", "cycles, model", "cycles, Verilog")
    for predicted, counted in zip(report.layers, verilog.report().layers):
        if counted.work is not None:
            assert counted.work.is_measured
            cycles = (f"{row.work.cycles:,}" for row in (predicted, counted))
            table.add_row(counted.name, *cycles)
    console.print(table)
    # Layers overlap: which one a word counts for is a matter of view, how many there are isn't.
    assert verilog.report().dram_bytes == report.dram_bytes
    print(f"both move {report.dram_bytes:,} bytes of memory")

# %%
# The program
# -----------
# Three modules take instructions from one stream: `load`, `compute` (`conv`, `pool`) and `store`.
# Tokens, the fields that begin with ``pop`` and ``push``, make one wait for another.

FIRST = 10
target = load_target("vta")
programs = programs_of(mod, target)
program = max(programs, key=lambda program: program.macs)
print(f"{len(programs)} program, of {', '.join(layer.name for layer in program.layers)}")
print(f"the first {FIRST} of {len(program.instructions)} instructions:")
print(disassemble(program.instructions[:FIRST]))

# %%
# The timeline
# ------------
# What ``bitenc sim net.onnx --trace timeline.png`` draws, of all layers, and of two with 2 bits by
# themselves.
# While the array computes a group of output channels, the weights of the next are loaded. Where
# the row of `compute` has gaps, it waits. `conv3` does so most of the time, and the color of `load`
# says for what: the parameters. Its results feed an 8-bit classifier, so that each channel has 255
# thresholds.

print("The timeline:", draw_timeline(programs, target.accelerator, OUT / "vta_timeline.png"))
parts = [part for part in parts_of(mod, target) if part.name in ("conv2", "conv3")]
body = [part.program(target.accelerator) for part in parts]
print("Two layers:", draw_timeline(body, target.accelerator, OUT / "vta_timeline_body.png"))

# %%
# The roofline
# ------------
# Left of the ridge memory is the limit, right of it the array. `conv2` is near the array's limit,
# `conv3` near the memory's. `conv1` is far from both, for its words are nearly empty.

print("The roofline:", report.roofline(OUT / "vta_roofline.png"))

# %%
# Another array
# -------------
# All sizes are in one TOML file, which compiler, simulators and Verilog read. Copies of it with
# other DM (output channels at a time) and DN (output pixels at a time) are targets, by their paths.
# A row of most buffers is DM or DN words wide, so they grow along.

DM, DN = (4, 8, 16, 32), (4, 8, 16)
shipped = (data_folder("targets") / "vta" / "default.toml").read_text()
cycles, utilization, of_conv3 = {}, {}, {}
for dm in DM:
    for dn in DN:
        path = OUT / f"vta_{dm}x{dn}.toml"
        path.write_text(shipped.replace("DM = 8", f"DM = {dm}").replace("DN = 8", f"DN = {dn}"))
        other = load_target(path)
        costs = dict[str, int]()
        found = programs_of(mod, other)
        assert len(found) == len(programs), "a layer doesn't fit, and stays on the CPU"
        for each in found:
            for layer, counted in layer_counters(each, other.accelerator, "functional"):
                costs[layer.name] = costs.get(layer.name, 0) + counted.cycles
        cycles[dm, dn] = sum(costs.values())
        of_conv3[dm, dn] = costs["conv3"] / cycles[dm, dn]
        peak = cycles[dm, dn] * other.accelerator.macs_per_cycle
        utilization[dm, dn] = sum(each.macs for each in found) / peak
assert cycles[8, 8] == report.cycles

small = be.build(mod, target=OUT / "vta_4x4.toml")  # A path is a target like any other.
assert np.array_equal(small(images[:1]), cpu(images[:1]))
print("a 4 x 4 array agrees too")

# %%
# Cycles by size. Four times the units aren't four times as fast: what memory limits stays, here
# the thresholds of `conv3`, and an array of more pixels than a layer has is partly idle.

table = Table("DM x DN", "cycles", "of these conv3", "utilization")
for size in cycles:
    shares = (f"{share[size]:.1%}" for share in (of_conv3, utilization))
    table.add_row("{} x {}".format(*size), f"{cycles[size]:,}", *shares)
console.print(table)
figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4))
for dn in DN:
    axes[0].plot(DM, [cycles[dm, dn] for dm in DM], "o-", label=f"DN = {dn}")
    axes[1].plot(DM, [100 * utilization[dm, dn] for dm in DM], "o-", label=f"DN = {dn}")
axes[0].set(ylabel="cycles of an image", ylim=(0, None))
axes[1].set(ylabel="utilization, %", ylim=(0, None))
for axis in axes:
    axis.set_xscale("log", base=2)
    axis.set(xlabel="DM, output channels at a time", xticks=DM, xticklabels=DM)
axes[0].legend()
figure.tight_layout()
figure.savefig(OUT / "vta_sizes.png", dpi=110)
print("Cycles by size:", OUT / "vta_sizes.png")
