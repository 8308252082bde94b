"""
Deploy to an ARM board: the network as C
========================================

The digits network with 2-bit weights and activations becomes a folder of C for a Raspberry Pi 4 and
for a 32-bit ARM. Where there is no board, QEMU runs the programs: exactly, but at a speed that says
nothing about a board. Every bit of the logits is compared with this machine's.

    pip install 'tvm-bitenc[tutorials]'
    sudo apt-get install make qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    sudo apt-get install gcc-arm-linux-gnueabihf libc6-dev-armhf-cross
    python tutorials/06_deploy_to_arm.py
"""

# %%
# The tools
# ---------
# A cross compiler and an emulator for each target. The target's description names QEMU's core: an
# instruction which that core lacks would stop the program here, not only on the board.

import re
import shutil
import subprocess
import sys
from typing import NamedTuple

import digits
import numpy as np
import torch
from digits import OUT
from matplotlib import pyplot
from rich.console import Console
from rich.table import Table

import tvm_bitenc as be
from tvm_bitenc.target import load_target


class Board(NamedTuple):
    """A target of the compiler, its C compiler and how its programs are run here."""

    target: str
    compiler: str
    emulator: tuple[str, ...]


AARCH64, ARMHF = "aarch64-linux-gnu", "arm-linux-gnueabihf"
BOARDS = [
    Board(target, f"{triple}-gcc", tuple(load_target(target).emulator.split()))
    for target, triple in (("cortex-a72", AARCH64), ("armv7-neon", ARMHF))
]
PACKAGES = f"make qemu-user gcc-{AARCH64} libc6-dev-arm64-cross gcc-{ARMHF} libc6-dev-armhf-cross"
tools = ["make", *(tool for board in BOARDS for tool in (board.compiler, board.emulator[0]))]
if missing := [tool for tool in tools if not shutil.which(tool)]:
    sys.exit(f"{', '.join(missing)} missing: sudo apt-get install {PACKAGES}")

# %%
# The network
# -----------
# Trained from float by way of 4 bits to 2, in a few epochs. The references are torch and the module
# compiled for this machine. A board sees one image at a time, so the batch is 1.

torch.set_num_threads(1)
console = Console(width=110)
data = digits.load_digits()
_, _, images, labels = data
model = digits.train_route((4, 2), data, epochs=6, low_epochs=4)["W2A2"]
imported = be.from_torch(model, (images[:1],))
here = be.build(imported, threads=1)
x = images.numpy()
expected = np.concatenate([here(image[None]) for image in x])
with torch.no_grad():
    by_torch = np.concatenate([model(image[None]).numpy() for image in images])


def equal_rows(a, b):
    """Number of images whose logits have the same bits."""
    return int((a.view(np.uint32) == b.view(np.uint32)).all(1).sum())


print(f"W2A2: {digits.accuracy(lambda _: expected, images, labels):.2%} of held-out digits")
print(f"logits of this machine equal to torch's: {equal_rows(expected, by_torch)} of {len(x)}")
assert np.array_equal(expected.argmax(1), by_torch.argmax(1))

# %%
# A program of your own
# ---------------------
# A bundle has an example program, `main.c`, that runs the network once. In your own program you
# include `net.h`, give the network an arena, and call it: it never allocates. This one reads images
# until the file ends, prints the class of each and writes its logits.

OWN = r"""
#include <stdio.h>
#include "net.h"

enum { CLASSES = NET_OUTPUT0_BYTES / sizeof(float) };
NET_DEFINE_ARENA(arena);
static float image[NET_INPUT0_BYTES / sizeof(float)], logits[CLASSES];

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    FILE *images = fopen(argv[1], "rb"), *results = fopen(argv[2], "wb");
    struct net net;
    if (!images || !results || net_init(&net, arena, sizeof arena) != NET_OK) return 1;
    while (fread(image, sizeof image, 1, images) == 1) {
        if (net_run(&net, image, logits) != NET_OK) return 1;
        int best = 0;
        for (int i = 1; i < CLASSES; ++i)
            if (logits[i] > logits[best]) best = i;
        printf("%d\n", best);
        if (fwrite(logits, sizeof logits, 1, results) != 1) return 1;
    }
    return fclose(results) != 0;
}
"""

# %%
# Export, make, run
# -----------------
# `export_c` writes the folder; its Makefile knows the cross compiler. ``STATIC=1`` makes a program
# that needs no library on the board, not even the C library. The example program runs once for each
# of some digits, ours once for all of them.


def command(*arguments, folder):
    """Run a command and return what it printed; its errors end the tutorial."""
    words = [str(argument) for argument in arguments]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def run_example(board, folder, image):
    """Logits of the bundle's example program."""
    image.tofile(folder / "x.bin")
    command(*board.emulator, "./net", "x.bin", "y.bin", folder=folder)
    return np.fromfile(folder / "y.bin", np.float32)


def run_own(board, folder, x):
    """Classes and logits of the program above."""
    (folder / "own.c").write_text(OWN)
    objects = ["net.o", "bitenc_runtime.o", "net_weights.o", "net_kernels.o"]
    flags = ["-std=c11", "-O2", "-Wall", "-Werror", "-static", "-s"]
    command(board.compiler, *flags, "own.c", *objects, "-lm", "-o", "own", folder=folder)
    x.tofile(folder / "digits.bin")
    printed = command(*board.emulator, "./own", "digits.bin", "logits.bin", folder=folder)
    logits = np.fromfile(folder / "logits.bin", np.float32).reshape(len(x), -1)
    return np.array(printed.split(), int), logits


SHOWN = 24
compared = Table("target", "main.c, equal logits", "own.c, equal logits", "own.c, equal classes")
sizes = {}
for board in BOARDS:
    lib = be.build(imported, target=board.target, threads=1)
    folder = lib.export_c(OUT / f"digits-{board.target}")
    command("make", "STATIC=1", folder=folder)
    example = np.stack([run_example(board, folder, image) for image in x[:SHOWN]])
    classes, logits = run_own(board, folder, x)
    counts = (
        (equal_rows(example, expected[:SHOWN]), SHOWN),
        (equal_rows(logits, expected), len(x)),
        (int((classes == by_torch.argmax(1)).sum()), len(x)),
    )
    compared.add_row(board.target, *(f"{equal} of {total}" for equal, total in counts))
    assert all(equal == total for equal, total in counts), f"{board.target}: {counts}"
    arena = re.search(r"#define NET_ARENA_BYTES (\d+)", (folder / "net.h").read_text())
    sizes[board.target] = {
        "program": (folder / "own").stat().st_size,
        "kernels": (folder / "net_kernels.o").stat().st_size,
        "weights": (folder / "net_weights.bin").stat().st_size,
        "arena": int(arena[1]),
    }
console.print(compared)

# %%
# How large it is
# ---------------
# The static program holds everything: kernels, weights and the C library. The arena is the memory
# for activations and workspace. In float the parameters alone would take four bytes each.

in_float = 4 * sum(parameter.numel() for parameter in model.parameters())
table = Table("target", *(f"{part}, bytes" for part in sizes[BOARDS[0].target]))
for target, parts in sizes.items():
    table.add_row(target, *(f"{size:,}" for size in parts.values()))
console.print(table)
console.print(f"The parameters in float: {in_float:,} bytes.")

# %%
# On a board
# ----------
# Copy the program, and that is all:
#
#     scp build/digits-cortex-a72/own build/digits-cortex-a72/digits.bin pi.local:
#     ssh pi.local ./own digits.bin logits.bin
#
# The other way is a library for TVM's runtime: `lib.export_library("net.so")` here, and
# `be.load("net.so")` in Python on the board. With `bitenc serve` running on the board, this uploads
# and runs it, compares every bit with the model compiled here and times each layer:
#
#     bitenc doctor --host pi.local
#     bitenc deploy net.so --host pi.local --model net.pt2
#
# `docs/deploy.md` has both ways, from a fresh card to the first inference.

figure = pyplot.figure(figsize=(10, 3.6))
left, right = figure.subfigures(1, 2, width_ratios=(3, 2))
for axis, image, label in zip(left.subplots(3, SHOWN // 3).flat, x, classes):
    axis.imshow(image[0], cmap="gray_r")
    axis.set_title(str(label), fontsize=9)
    axis.axis("off")
left.suptitle(f"classes printed by own.c, {BOARDS[-1].target} under QEMU", fontsize=10)
axis = right.subplots()
for i, (target, parts) in enumerate(sizes.items()):
    axis.bar(
        np.arange(len(parts)) + 0.4 * i, np.array(list(parts.values())) / 1024, 0.4, label=target
    )
axis.axhline(in_float / 1024, color="gray", linestyle="--", label="parameters in float")
axis.set_xticks(np.arange(len(parts)) + 0.2, list(parts))
axis.set_ylabel("KiB")
axis.legend(fontsize=8)
figure.savefig(OUT / "deploy.png", dpi=110)
print("The picture:", OUT / "deploy.png")
