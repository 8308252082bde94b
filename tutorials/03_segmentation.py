"""
Semantic segmentation: a digit for every pixel
==============================================

A small U-Net (Ronneberger et al., 2015) tells for every pixel of a scene which digit it belongs to,
if any. It is trained in float and then, each from the one before, at 8, 4, 2 and 1 bits, and
compiled. Codes flow through upsampling and concatenation: nothing between its layers is float.

    pip install 'tvm-bitenc[tutorials]'
    python tutorials/03_segmentation.py
"""

# %%
# Scenes
# ------
# The same scenes as in the tutorial on detection, with their masks.

import numpy as np
import scenes
import torch
from digits import OUT, train
from matplotlib import pyplot
from rich.console import Console
from rich.table import Table
from scenes import BACKGROUND
from sklearn.metrics import jaccard_score
from torch import nn
from torch.nn import functional

import tvm_bitenc as be
from tvm_bitenc.nn import QActivation, QConv2d, init_from
from tvm_bitenc.transform import no_lowering

torch.set_num_threads(1)
console = Console(width=110)
train_scenes, test_scenes = scenes.load_scenes(train=1000, test=200)

# %%
# The network
# -----------
# Two steps down, two up, each up beside the features of the same size on the way down. The first
# and the last layer have 8 bits, all others ``bits``; ``None`` makes the float network.

RANGE = 3.0  # Batch-norm's outputs rarely leave it, so little is lost where a layer clips there.


def layer(in_channels, out_channels, bits, act=None):
    """A convolution and its batch-norm; float where bits is None."""
    if bits is None:
        conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())
    act = act or activation(bits)
    conv = QConv2d(in_channels, out_channels, 3, padding=1, bias=False, weight_bits=bits, act=act)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def activation(bits):
    """Levels from 0 up; the signs for 1 bit, which would have 0 alone otherwise."""
    return QActivation(bits, "tanh" if bits == 1 else "relu", input_range=RANGE)


class UNet(nn.Module):
    """Logits (N, 11, 48, 48) of the pixels of scenes (N, 1, 48, 48)."""

    def __init__(self, bits=None):
        super().__init__()
        is_float = bits is None
        image = None if is_float else QActivation(8, "relu")
        self.down1 = layer(1, 16, None if is_float else 8, image)
        self.down2 = layer(16, 32, bits)
        self.middle = nn.Sequential(layer(32, 64, bits), layer(64, 64, bits))
        self.up2 = layer(64 + 32, 32, bits)
        self.up1 = layer(32 + 16, 32, bits)
        self.pool, self.upsample = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)
        last = {} if is_float else {"weight_bits": 8, "act": activation(8)}
        self.classifier = (nn.Conv2d if is_float else QConv2d)(32, BACKGROUND + 1, 1, **last)

    def forward(self, x):
        fine = self.down1(x)
        coarse = self.down2(self.pool(fine))
        x = self.middle(self.pool(coarse))
        x = self.up2(torch.cat([self.upsample(x), coarse], 1))
        x = self.up1(torch.cat([self.upsample(x), fine], 1))
        return self.classifier(x)


# %%
# Training
# --------
# Most pixels are background, so the pixels of digits weigh more.


def keep(images, _generator):
    """The scenes as they are: their masks stay where they are."""
    return images


weights = torch.ones(BACKGROUND + 1)
weights[BACKGROUND] = 0.2


def loss(logits, mask):
    """Weighted cross-entropy."""
    return functional.cross_entropy(logits, mask, weights)


data = train_scenes.images, train_scenes.masks
models, before = {}, None
torch.manual_seed(0)
for bits, epochs in [(None, 10), (8, 2), (4, 3), (2, 3), (1, 6)]:
    model = UNet(bits)
    if before is not None:
        init_from(model, before)
    before = train(model, data, epochs, loss=loss, augment=keep, batch_size=32)
    name = "float" if bits is None else f"W{bits}A{bits}"
    models[name] = before
    console.print(f"trained {name}, {epochs} epochs")

# %%
# Compiled
# --------
# The mean intersection over union of the eleven classes, by scikit-learn. As in the other
# tutorials, the module as it was imported (``no_lowering``) is the oracle of every logit.


def mean_iou(logits):
    """Mean over the classes, of all pixels of the test scenes."""
    predicted = np.asarray(logits).argmax(1)
    return jaccard_score(test_scenes.masks.numpy().ravel(), predicted.ravel(), average="macro")


images, few = test_scenes.images, test_scenes.images[:10]
table = Table("network", "mean IoU, torch", "mean IoU, compiled", "equal", "us a scene")
quality, outputs = {}, {}
for name, model in models.items():
    with torch.no_grad():
        quality[name] = in_torch = mean_iou(model(images))
    if name == "float":
        table.add_row(name, f"{in_torch:.3f}", "", "", "")
        continue
    lib = be.build(be.from_torch(model, (images,)))
    outputs[name] = lib(images)
    quality[name] = mean_iou(outputs[name])
    oracle = be.build(be.from_torch(model, (few,)), pipeline=no_lowering)
    assert np.array_equal(outputs[name][: len(few)], oracle(few)), name
    seconds = lib.benchmark(images, number=1, repeat=5).best / len(images)
    table.add_row(name, f"{in_torch:.3f}", f"{quality[name]:.3f}", "yes", f"{1e6 * seconds:.0f}")
console.print(table)
assert quality["W4A4"] >= quality["float"] - 0.03

# %%
# Masks
# -----

columns = {"scene": images[:, 0], "truth": test_scenes.masks}
columns |= {name: outputs[name].argmax(1) for name in ("W4A4", "W2A2", "W1A1")}
figure, axes = pyplot.subplots(3, len(columns), figsize=(9, 5.6))
for row, scene in zip(axes, range(3)):
    for axis, (title, column) in zip(row, columns.items()):
        if title == "scene":
            axis.imshow(column[scene], cmap="gray")
        else:  # One color for each digit, black for the background.
            shown = np.ma.masked_equal(np.asarray(column[scene]), BACKGROUND)
            axis.imshow(shown, cmap="tab10", vmin=0, vmax=9, interpolation="nearest")
            axis.set_facecolor("black")
        axis.set(xticks=[], yticks=[])
for axis, title in zip(axes[0], columns):
    axis.set_title(f"{title}, {quality[title]:.3f}" if title in quality else title)
figure.tight_layout()
OUT.mkdir(exist_ok=True)
figure.savefig(OUT / "segmentation.png", dpi=110)
console.print(f"The picture: {OUT / 'segmentation.png'}")
