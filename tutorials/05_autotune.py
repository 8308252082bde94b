"""
Autotune for this machine; read the roofline
============================================

A small 2-bit network is compiled by the default rules, tuned on this machine for some seconds, and
compiled again with what was found. Then both are timed in turns, and put below the roofs of this
machine: how fast a layer could be, and why it isn't faster.

    pip install 'tvm-bitenc[tutorials]'
    python tutorials/05_autotune.py
"""

# %%
# The default rules
# -----------------
# Four convolutions of a ResNet for 32 by 32 images, with 2-bit weights and activations. Without a
# database, `build` takes the records that ship for some CPUs; ``database=False`` takes none, so
# every layer is made by the default rule. One thread, as records hold for one number of threads.

import time
from collections import OrderedDict

import numpy as np
import torch
from digits import OUT
from matplotlib import pyplot
from rich.console import Console
from rich.table import Table
from torch import nn

import tvm_bitenc as be
from tvm_bitenc.nn import QConv2d
from tvm_bitenc.records.file import Record, Trial, read_lines
from tvm_bitenc.report.roof import measure_roof
from tvm_bitenc.report.timing import layer_seconds

console = Console(width=110)
torch.manual_seed(0)
torch.set_num_threads(1)
LAYERS = {  # in_channels, out_channels, stride
    "conv64": (64, 64, 1),
    "down128": (64, 128, 2),
    "conv128": (128, 128, 1),
    "down256": (128, 256, 2),
}
modules = OrderedDict()
for name, (in_channels, out_channels, stride) in LAYERS.items():
    modules[name] = QConv2d(
        in_channels, out_channels, 3, stride, padding=1, bias=False, weight_bits=2, act_bits=2
    )
    modules[f"{name}_norm"] = nn.BatchNorm2d(out_channels)
model = nn.Sequential(modules).eval()
x = torch.rand(1, 64, 32, 32)
mod = be.from_torch(model, (x,))
default = be.build(mod, "native", threads=1, database=False)
print(default.report())

# %%
# Tuning
# ------
# A candidate is a strategy (xnor, lut or int8) and a tile: how many pixels and channels have their
# sums in registers together. Each is measured beside the default, in turns, and must give the same
# bits. The file gets a line for each trial, when it is done. 12 trials a layer are few, 64 are the
# default; a cost model that has read the shipped records chooses which.

OUT.mkdir(exist_ok=True)
database = OUT / "tutorial-tuned.jsonl"
database.unlink(missing_ok=True)  # Start anew, to show all of it.
TRIALS = 12
start = time.perf_counter()
results = be.tune(mod, "native", TRIALS, database, threads=1, progress=False)
first_seconds = time.perf_counter() - start


def lines(kind):
    """Lines of the file that are trials, or records."""
    return [line for line in read_lines(database) if isinstance(line, kind)]


trials = lines(Trial)
failed = sum(bool(trial.error) for trial in trials)
print(f"{len(trials)} trials in {first_seconds:.0f} s, {failed} of them failed")
for name in LAYERS:
    (result,) = [each for each in results if each.name == name]
    print(f"{name:8} {result.strategy:5} {result.speedup:.3f} x the default")

# %%
# Going on where it was
# ---------------------
# Trials that are in the file aren't repeated. The same call again, as after an interruption, finds
# all of them done. A larger ``trials=`` would add the difference. What still takes time is the last
# step, described next: candidates of layers without a record are compared once more.

start = time.perf_counter()
be.tune(mod, "native", TRIALS, database, threads=1, progress=False)
second_seconds = time.perf_counter() - start
assert lines(Trial) == trials
print(f"again: no new trial, {second_seconds:.0f} s instead of {first_seconds:.0f} s")

# %%
# Building with records
# ---------------------
# A trial isn't a record yet: the best three of a layer meet the default once more, in nine
# placements of memory, and one becomes a record only if it wins there. A layer without a record
# keeps the default rule; the column "schedule" says which it is. If none has one, `build` warns.

tuned = be.build(mod, "native", threads=1, database=database)
print(tuned.report())
count = len({record.workload for record in lines(Record)})
assert sum(row.schedule != "default rule" for row in tuned.report().layers) == count
expected = default(x)
assert np.array_equal(tuned(x), expected)
print(f"{count} of {len(LAYERS)} layers have a record; all {expected.size} outputs are the same")

# %%
# Before and after
# ----------------
# Whatever else the machine does hits both alike, as they run in turns. The fastest turn counts.
# A layer without a record has the same kernel twice: its ratio shows the noise. The last line is
# the whole network, without a clock around each layer; float arithmetic at both ends is in it too.

ROUNDS = 15
best = {"default": [], "tuned": []}
turns = {"default": [], "tuned": []}
for _ in range(ROUNDS):
    for name, lib in (("default", default), ("tuned", tuned)):
        times = lib.benchmark(x, number=20, repeat=5)
        turns[name].append(layer_seconds(lib.report(), times))
        best[name].append(times.best)
seconds = {name: np.min(values, axis=0) for name, values in turns.items()}
table = Table("layer", "default", "us", "tuned", "us", "x default", title="in turns")
rows = list(zip(default.report().layers, tuned.report().layers, *seconds.values()))
for old, new, before, after in rows:
    cells = [f"{1e6 * before:.1f}", new.strategy, f"{1e6 * after:.1f}", f"{before / after:.3f}"]
    table.add_row(old.name, old.strategy, *cells)
before, after = min(best["default"]), min(best["tuned"])
table.add_row(
    "network", "", f"{1e6 * before:.1f}", "", f"{1e6 * after:.1f}", f"{before / after:.3f}"
)
console.print(table)

# %%
# The roofline
# ------------
# Two roofs are above a layer; `measure_roof` finds both. The flat one is what the vector
# instructions of a strategy allow with these bits, at the clock measured now. The slope is what the
# cache delivers: multiply-accumulates per byte that the layer moves, times bytes per second.
#
# Left of the corner a layer waits for bytes, and no tile helps: fewer bits or more reuse would.
# Right of it, instructions count: another strategy may have a higher roof, and another tile may
# come nearer to the same one. The rest is loads, the ends of loops, thresholds and packing. Where
# the default is near its roof already, tuning has little to find.

roof = measure_roof(threads=1)
points = {
    name: [(row, row.macs / row.moved_bytes, row.macs / each / 1e9) for row, each in pairs]
    for name, pairs in (
        ("default", zip(default.report().layers, seconds["default"])),
        ("tuned", zip(tuned.report().layers, seconds["tuned"])),
    )
}
corner = (roof.gmacs("xnor", 2, 2) or 0) / roof.bandwidth
if corner:
    print(f"xnor's corner is at {corner:.1f} MAC/byte")
for row, intensity, speed in points["tuned"]:
    top = roof.gmacs(row.strategy, row.weight_bits, row.act_bits)
    share = f", {100 * speed / top:.0f} % of {row.strategy}'s roof" if top else ""
    print(f"{row.name:8} {speed:6.0f} GMAC/s at {intensity:.0f} MAC/byte{share}")

# %%
# The picture
# -----------
# Hollow is before, filled is after. The page of `Report.to_html` has the same chart, with the
# graph and the sizes of the network.

figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2))
intensities = [intensity for _, intensity, _ in points["tuned"]]
axis_x = np.geomspace(1, 3 * max(intensities), 200)
tops = {name: roof.gmacs(name, 2, 2) for name in ("xnor", "lut", "int8")}
colors = dict(zip(tops, ("C0", "C1", "C2")))
for name, top in tops.items():
    if top:  # Nothing is known of other instruction sets.
        level = np.minimum(top, axis_x * roof.bandwidth)
        left.plot(axis_x, level, color=colors[name], label=f"{name} W2A2, {top:,.0f} GMAC/s")
for name, fill in (("default", False), ("tuned", True)):
    for row, intensity, speed in points[name]:
        color = colors[row.strategy]
        left.plot(intensity, speed, "o", color=color, mfc=color if fill else "none")
for row, intensity, speed in points["tuned"]:
    left.annotate(
        row.name, (intensity, speed), (0, -8), textcoords="offset points",
        fontsize=8, rotation=-90, ha="center", va="top",
    )  # fmt: skip
left.set(xscale="log", yscale="log", xlabel="MAC per byte moved", ylabel="GMAC/s")
left.set_title(f"{roof.target.cpu}, {roof.clock_ghz:.2f} GHz, {roof.bandwidth:.0f} GB/s")
left.legend(fontsize=8, loc="lower center")
positions = np.arange(len(LAYERS))
for shift, name in ((-0.2, "default"), (0.2, "tuned")):
    right.bar(positions + shift, 1e6 * seconds[name], 0.4, label=name)
right.set_xticks(positions, list(LAYERS))
right.set(ylabel="microseconds, one thread", title="before and after, in turns")
right.legend()
figure.tight_layout()
figure.savefig(OUT / "autotune.png", dpi=110)
print("The picture:", OUT / "autotune.png")
page = tuned.report().to_html(
    OUT / "autotune.html", benchmark=tuned.benchmark(x, number=20, repeat=5), roof=roof
)
print("The page:", page)
