"""
How it works: one layer, from float to assembly
===============================================

One 2-bit convolution is followed by hand: floats, codes, planes, branches, thresholds. Then the
compiler does the same, and its module is printed after every pass, then the kernel as TIR, and
the machine's instructions.

    pip install 'tvm-bitenc[tutorials]'
    python tutorials/08_how_it_works.py
"""

# %%
# From floats to codes
# --------------------
# An M-bit code u stands for the bipolar value v = 2u - (2^M - 1), an odd integer, and for the real
# value s / 2 (v + o). `Encoding` holds bits, scale and zero point, and all of this mathematics.

import re
from collections import Counter

import numpy as np
import torch
import tvm
from digits import OUT
from matplotlib import pyplot
from torch import nn

import tvm_bitenc as be
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.nn import QConv2d
from tvm_bitenc.target import load_target
from tvm_bitenc.transform import default_pipeline

rng = np.random.default_rng(0)
weight_encoding = Encoding.symmetric(2, 2 / 3)  # The levels -1, -1/3, 1/3, 1.
act_encoding = Encoding.unsigned(2, 1 / 3)  # The levels 0, 1/3, 2/3, 1.
w = weight_encoding.quantize(rng.normal(size=8).astype(np.float32))
a = act_encoding.quantize(rng.uniform(size=8).astype(np.float32))
print("weight codes      ", w, "real", weight_encoding.dequantize(w).round(2))
print("activation codes  ", a, "real", act_encoding.dequantize(a).round(2))

# %%
# From codes to planes and branches
# ---------------------------------
# Plane m holds bit m of every code, as -1 or +1. A dot product is a sum of four branches, one for
# each pair of planes; a branch is an xor and a count of bits.


def planes(codes, bits):
    """Bits of the codes as -1 and +1, lowest plane first."""
    return [2 * ((codes.astype(int) >> m) & 1) - 1 for m in range(bits)]


total = 0
for m, w_plane in enumerate(planes(w, 2)):
    for k, a_plane in enumerate(planes(a, 2)):
        differ = int((w_plane != a_plane).sum())  # The popcount of the xor.
        branch = len(w) - 2 * differ
        assert branch == int(w_plane @ a_plane)
        total += 2 ** (m + k) * branch
        print(f"weight plane {m}, activation plane {k}: {branch:+d}, times {2 ** (m + k)}")
v_w, v_a = 2 * w.astype(int) - 3, 2 * a.astype(int) - 3
assert total == int(v_w @ v_a)
print("sum of the branches", total, "= the dot product of the bipolar values")

# %%
# The zero of the activations is level 0, so their offset o is 3: the real dot product adds
# o * sum(v_w), a constant of the layer.

offset = 3
real = weight_encoding.dequantize(w) @ act_encoding.dequantize(a)
integer = total + offset * int(v_w.sum())
assert np.isclose(real, (2 / 3) / 2 * (1 / 3) / 2 * integer)
print(f"real dot product {real:.4f} = scale * {integer}")

# %%
# The compiler's passes
# ---------------------
# Two such convolutions of 64 channels, a batch-norm between them. Read the module after each pass:
# `quantize` and `conv2d` become `branch_conv2d`, batch-norm and the next layer's quantizer one
# `threshold`, codes become packed planes, and in the end all of it is two kernels.

torch.manual_seed(0)
model = nn.Sequential(
    QConv2d(64, 64, 3, padding=1, bias=False, weight_bits=2, act_bits=2),
    nn.BatchNorm2d(64),
    QConv2d(64, 64, 3, padding=1, bias=False, weight_bits=2, act_bits=2),
).eval()
x = torch.rand(1, 64, 8, 8)
WIDTH = 118


def script(mod):
    """Lines of the module's main function: TVM's text, without weights and types."""
    text = mod["main"].script(show_meta=False)
    short = re.sub(r'metadata\["ir.GenericConst"\]\[(\d+)\]', r"constant_\1", text)
    lines = [re.sub(r", ret_ty=.*", ")", line) for line in short.splitlines()]
    return [line[:WIDTH] for line in lines if line and not line.startswith(("#", "from ", "@"))]


target = load_target("native")
mod = be.from_torch(model, (x,))
before, ops = script(mod), {"imported": Counter()}
print("\n".join(before))
for step in default_pipeline(target, "xnor").passes:
    mod = step(mod)
    after = script(mod)
    print(f"\n===== {step.info.name}" + (": nothing to do here" if after == before else ""))
    if after != before:
        print("\n".join(after))
    before = after
    ops[step.info.name.removeprefix("bitenc.")] = Counter(
        kind
        for line in after
        for kind, mark in (("bitenc", '"bitenc.'), ("kernel", "call_tir"), ("other", "= R."))
        if mark in line
    )
del ops["imported"]

# %%
# The kernel as TIR
# -----------------
# The last pass made a TIR function of every packed convolution: loops over rows, blocks of channels
# and tiles of pixels, with xor and popcount inside.

name, kernel = next(
    (variable.name_hint, function)
    for variable, function in mod.functions_items()
    if "packed_conv2d" in variable.name_hint
)
tir = [line[:WIDTH] for line in kernel.script().splitlines()]
start = next(i for i, line in enumerate(tir) if "popcount" in line)
print(f"{name}: {len(tir)} lines, and these are in the middle")
print("\n".join(tir[max(0, start - 25) : start + 5]))

# %%
# The instructions
# ----------------
# What LLVM makes of it on this machine. With AVX-512's VPOPCNTDQ the loop is xor, count and add on
# 512 bits at a time; with AVX2 two byte shuffles count.

function = kernel.with_attr("global_symbol", "main")
library = tvm.compile(tvm.IRModule({"main": function}), target=target.tvm_target)
text = library.mod.inspect_source("asm").expandtabs(8).splitlines()
assembly = [line.strip() for line in text if not line.lstrip().startswith((".", "#"))]
counts = [i for i, line in enumerate(assembly) if line.startswith(("vpopcnt", "vpshufb", "popcnt"))]
print(f"{len(assembly)} lines of assembly, {len(counts)} of which count bits; around the first:")
print("\n".join(assembly[counts[0] - 6 : counts[0] + 14] if counts else assembly[:20]))

# %%
# The result is the un-lowered module's, to the bit.

expected = model(x).detach().numpy()
assert np.array_equal(be.build(be.from_torch(model, (x,)), strategy="xnor")(x), expected)
print("compiled and torch agree on all", expected.size, "numbers")

# %%
# What is in the module after each pass.

figure, axis = pyplot.subplots(figsize=(8, 3.6))
height = np.zeros(len(ops))
for kind, label in (("other", "TVM's ops"), ("bitenc", "bitenc ops"), ("kernel", "kernels")):
    values = np.array([count[kind] for count in ops.values()])
    axis.bar(list(ops), values, bottom=height, label=label)
    height += values
axis.set_ylabel("ops in the module")
axis.tick_params(axis="x", rotation=40)
axis.legend()
figure.tight_layout()
OUT.mkdir(exist_ok=True)
figure.savefig(OUT / "passes.png", dpi=110)
print("The picture:", OUT / "passes.png")
