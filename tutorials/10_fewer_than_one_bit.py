"""
Fewer than one bit a weight
===========================

Weights that are -1 or +1 take a bit each, unless they repeat. Three published systems make them
repeat: Tiled Bit Networks copy one tile, Sub-bit Networks and Sparse Kernel Selection have few
kernels. Each is trained on pictures of clothing here, compiled, and compared with torch.

    apt-get install dataset-fashion-mnist
    pip install 'tvm-bitenc[tutorials]'
    python tutorials/10_fewer_than_one_bit.py

Where there is no such package, set ``FASHION_MNIST`` to a folder with the data set's four files
(https://github.com/zalandoresearch/fashion-mnist).
"""

# %%
# Data and the float network
# --------------------------
# Fashion-MNIST has ten kinds of clothing, 28 by 28 pixels. A small part of it is enough to see what
# costs what; `python -m benchmarks.fashion` trains on all of it. `FashionNet` has an 8-bit first
# layer and classifier, as is usual, and three 3x3 convolutions between, with shortcuts. A float
# network is trained first. All others start from it and learn half from the labels and half from
# its outputs: so does its float twin, for as long as they do.

import math
from functools import partial

import torch
from digits import OUT, accuracy
from matplotlib import pyplot
from rich.console import Console
from rich.table import Table

import tvm_bitenc as be
from tvm_bitenc.nn import CodebookConv2d, FashionNet, QConv2d, init_from
from tvm_bitenc.nn.codewords import kernel_numbers
from tvm_bitenc.nn.datasets import load_fashion
from tvm_bitenc.nn.training import distilled, flipped, train

TRAINED, TESTED = 4000, 1000
torch.manual_seed(0)
torch.set_num_threads(1)
console = Console(width=110)
x_train, y_train, x_test, y_test = load_fashion()
x_train, y_train, images, labels = (
    *(part[:TRAINED] for part in (x_train, y_train)),
    *(part[:TESTED] for part in (x_test, y_test)),
)
learn = partial(train, epochs=2, batch_size=32, augment=flipped)
teacher = learn(FashionNet(), x_train, y_train)
targets = distilled(teacher, x_train, y_train)
twin = learn(init_from(FashionNet(), teacher), x_train, targets, rate=2e-3)
console.print(f"float: {accuracy(twin, images, labels):.2%}")

# %%
# Weights that repeat
# -------------------
# **Tiles** (arXiv 2407.12075): the weights of a layer, in order, are p copies of one tile. The
# tile is the sign of the sum of p trained tensors, and each copy has a scale. A layer of N weights
# stores N / p bits and p scales: ``QConv2d(..., tiles=p)``. Small layers aren't tiled: here, the
# first of the three.
#
# **Codewords** (arXiv 2110.09195, 2303.14470): of the 512 kernels that 3x3 signs can be, a layer
# has n, and each pair of an output and an input channel chooses one: log2(n) bits in place of nine.
# Two ways to choose the n: as signs of trained kernels (``select="nearest"``), or as the first n
# places of a trained permutation of all 512 (``select="permute"``):
# ``CodebookConv2d(..., codewords=n)``.

LAYERS = {
    "plain": dict(weight_bits=1),
    "4 tiles": dict(weight_bits=1, tiles=4),
    "8 tiles": dict(weight_bits=1, tiles=8),
    "32 nearest": dict(codewords=32, select="nearest"),
    "32 permuted": dict(codewords=32, select="permute"),
    "16 nearest": dict(codewords=16, select="nearest"),
}


def stored_bits(layer):
    """Bits of a layer's weights: indices and codewords, or a tile; a scale is a float."""
    if isinstance(layer, CodebookConv2d):
        indices = layer.index.numel() * math.log2(layer.codewords)
        return indices + 9 * layer.codewords + 32 * layer.out_channels
    scales = layer.tiles if layer.tiles > 1 else layer.out_channels
    return layer.weight.numel() / layer.tiles + 32 * scales


def bits_per_weight(model):
    """Of the layers between the first and the last."""
    layers = [block.conv for block in model.blocks]
    return sum(map(stored_bits, layers)) / sum(layer.weight.numel() for layer in layers)


# %%
# Training and compiling
# ----------------------
# A codebook starts from the most frequent kernels of the float weights' signs. In so few steps
# codewords change at a high rate alone; the table says how many have. What torch predicts, the
# compiled network does, for every picture.


def codebooks(model):
    """Layer and number of each codeword of a network."""
    layers = [block.conv for block in model.blocks if isinstance(block.conv, CodebookConv2d)]
    numbers = [kernel_numbers(layer.choice.kernels).tolist() for layer in layers]
    return {(layer, number) for layer, own in enumerate(numbers) for number in own}


table = Table("weights", "bits a weight", "new codewords", "accuracy", "same predictions")
points = {}
for name, options in LAYERS.items():
    torch.manual_seed(0)
    model = init_from(FashionNet(dict(act_bits=2, **options)), teacher)
    start = codebooks(model)
    learn(model, x_train, targets, rate=2e-3, codebook_rate=200)
    bits, share = bits_per_weight(model), accuracy(model, images, labels)
    lib = be.build(be.from_torch(model, (images[:500],)))
    with torch.no_grad():
        wanted = torch.cat([model(part).argmax(1) for part in images.split(500)])
    compiled = torch.cat([torch.from_numpy(lib(part)).argmax(1) for part in images.split(500)])
    same = int((compiled == wanted).sum())
    new = f"{len(codebooks(model) - start)} of {len(start)}" if start else ""
    table.add_row(name, f"{bits:.2f}", new, f"{share:.2%}", f"{same} of {len(images)}")
    assert same == len(images), name
    points[name] = bits, 100 * share
console.print(table)

# %%
# Accuracy against bits
# ---------------------
# Further to the left is smaller. The authors train for hundreds of epochs; here are two. One
# picture of the 1,000 is .1 %, so that chance alone moves a point by about one percent.

figure, axis = pyplot.subplots(figsize=(6.4, 3.6))
for kind, marker in ((QConv2d, "o"), (CodebookConv2d, "s")):
    names = [n for n in points if ("codewords" in LAYERS[n]) == (kind is CodebookConv2d)]
    axis.plot(*zip(*sorted(points[n] for n in names)), marker, label=kind.__name__)
for name, (bits, percent) in points.items():
    below = (5, -12) if "permuted" in name else (5, 5)
    axis.annotate(name, (bits, percent), xytext=below, textcoords="offset points", fontsize=8)
axis.axhline(100 * accuracy(twin, images, labels), color="gray", ls="--", label="float")
axis.set(xlabel="stored bits a weight, scales included", ylabel="accuracy, %", xlim=(0, 1.5))
axis.margins(y=0.8)
axis.legend(loc="lower right")
figure.tight_layout()
OUT.mkdir(exist_ok=True)
figure.savefig(OUT / "fewer_than_one_bit.png", dpi=110)
console.print(f"The picture: {OUT / 'fewer_than_one_bit.png'}")
