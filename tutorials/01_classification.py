"""
Classification: accuracy against bits
=====================================

Pictures of clothing, recognised in float and with 8 to 1 bits for weights and activations. The
networks are trained by the paper's route: from high precision to low, each from the one before.
Each is compiled, and every number that it computes is compared with the module as it was imported.

    apt-get install dataset-fashion-mnist
    pip install 'tvm-bitenc[tutorials]'
    python tutorials/01_classification.py

Where there is no such package, set ``FASHION_MNIST`` to a folder with the data set's four files
(https://github.com/zalandoresearch/fashion-mnist).
"""

# %%
# Data and training
# -----------------
# Fashion-MNIST has ten kinds of clothing, 28 by 28 pixels. A small part of it is enough to see what
# bits cost; `python -m benchmarks.fashion` trains on all of it. `FashionNet` has a first layer and
# a classifier of 8 bits, as is usual, and three 3x3 convolutions between, with shortcuts. The
# network of k bits starts from that of k + 1, and that of 8 bits from the float one. Few bits are
# further from the network before, and learn for longer.

from functools import partial

import numpy as np
import torch
from digits import OUT, accuracy
from matplotlib import pyplot
from rich.console import Console
from rich.table import Table

import tvm_bitenc as be
from tvm_bitenc.nn import FashionNet, init_from
from tvm_bitenc.nn.datasets import load_fashion
from tvm_bitenc.nn.training import flipped, train
from tvm_bitenc.transform import no_lowering

TRAINED, TESTED, COMPARED = 2500, 1000, 250
torch.manual_seed(0)
torch.set_num_threads(1)
console = Console(width=110)
x_train, y_train, x_test, y_test = load_fashion()
x_train, y_train, images, labels = (
    *(part[:TRAINED] for part in (x_train, y_train)),
    *(part[:TESTED] for part in (x_test, y_test)),
)
learn = partial(train, images=x_train, targets=y_train, batch_size=32, augment=flipped)
models = {"float": learn(FashionNet(), epochs=6)}
for bits in range(8, 0, -1):
    model = init_from(FashionNet(dict(weight_bits=bits, act_bits=bits)), list(models.values())[-1])
    models[f"W{bits}A{bits}"] = learn(model, epochs=1 if bits > 4 else 2, rate=2e-3)

# %%
# Compiling
# ---------
# `from_torch` imports a module, `build` compiles it. With ``pipeline=no_lowering`` nothing is
# lowered: the imported module runs as it is, float and quantizers, and is the oracle here. The
# logits, not only the predictions, are the same to the bit. It has no fast kernels, so that it runs
# on a part of the images.

table = Table("network", "accuracy, torch", "accuracy, compiled", "equal logits", "weight bytes")
accuracies = {}
for name, model in models.items():
    accuracies[name] = accuracy(model, images, labels)
    if name == "float":
        table.add_row(name, f"{accuracies[name]:.2%}", "", "", "")
        continue
    imported = be.from_torch(model, (images[:COMPARED],))
    lib, oracle = be.build(imported), be.build(imported, pipeline=no_lowering)
    logits = np.concatenate([lib(part) for part in images.split(COMPARED)])
    equal = int((logits[:COMPARED] == oracle(images[:COMPARED])).all(1).sum())
    assert equal == COMPARED, f"{name}: {COMPARED - equal} images have other logits"
    compiled = float((logits.argmax(1) == labels.numpy()).mean())
    counts = f"{equal} of {COMPARED}"
    stored = f"{lib.report().stored_bytes:,}"
    table.add_row(name, f"{accuracies[name]:.2%}", f"{compiled:.2%}", counts, stored)
console.print(table)
loss = 100 * (accuracies["float"] - accuracies["W2A2"])
console.print(f"W2A2 is {loss:.2f} points below float.")
assert loss <= 3

# %%
# Beside the paper's figures
# --------------------------
# What the paper measured on CIFAR-10 and, with ResNet-18, on ImageNet. These are the authors'
# numbers, not ours: Table 3 of Sun et al., "Multi-Precision Quantized Neural Networks via Encoding
# Decomposition of {-1,+1}", AAAI 2019, arXiv 1905.13389, the earlier text of arXiv 2106.09886. On
# small images few bits cost little, as here; ImageNet asks for six or more.

BITS = np.arange(1, 9)
PAPER = {  # Percent by bits, 1 to 8, and in full precision.
    "CIFAR-10 (paper)": ([90.39, 91.06, 91.27, 91.15, 90.92, 91.01, 90.20, 90.43], 91.40),
    "ImageNet top-1 (paper)": ([47.10, 56.30, 58.69, 59.57, 65.09, 67.04, 68.37, 68.63], 68.60),
}
ours = [100 * accuracies[f"W{bits}A{bits}"] for bits in BITS]
figure, axes = pyplot.subplots(1, 3, figsize=(10, 3.2))
curves = {"Fashion-MNIST (measured here)": (ours, 100 * accuracies["float"]), **PAPER}
for axis, (title, (by_bits, full)) in zip(axes, curves.items()):
    axis.plot(BITS, by_bits, "o-", label="M = K bits")
    axis.axhline(full, color="gray", linestyle="--", label="float")
    axis.set(title=title, xlabel="bits of weights and activations", xticks=BITS)
axes[0].set_ylabel("accuracy, %")
axes[0].legend(loc="lower right")
figure.text(0.99, 0.01, "paper: arXiv 1905.13389, Table 3", ha="right", fontsize=7)
figure.tight_layout(rect=(0, 0.03, 1, 1))
OUT.mkdir(exist_ok=True)
figure.savefig(OUT / "classification.png", dpi=110)
console.print(f"The picture: {OUT / 'classification.png'}")
