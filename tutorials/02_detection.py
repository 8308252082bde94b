"""
Object detection: boxes around digits
=====================================

A detector in the style of SSD (Liu et al., 2016) finds scanned digits at random places and sizes.
It is trained in float and then, each from the one before, at 8, 6, 4 and 2 bits, and compiled. The
mean average precision is that of COCO, by `pycocotools`.

    pip install 'tvm-bitenc[tutorials]'
    python tutorials/02_detection.py
"""

# %%
# Scenes
# ------
# Two to four digits a scene; those of the test scenes never appear in a training scene.

import contextlib
import io

import numpy as np
import scenes
import torch
from digits import OUT, train
from matplotlib import pyplot
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console
from rich.table import Table
from scenes import BACKGROUND
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
# Two maps of features, of cells of 4 and of 8 pixels. A head on each says for every cell and anchor
# how to move the anchor onto a digit, and which digit it is. As is usual, the image's layer and the
# heads have 8 bits; ``bits`` are those of all other layers. ``None`` makes the float network, with
# the same names, so that the quantized ones can start from it.

ANCHORS = {4: [(8, 12), (11, 16)], 8: [(12, 19), (15, 23)]}  # Widths and heights, by cell.
CLASSES = BACKGROUND + 1
OUTPUTS = 4 + CLASSES
RANGE = 3.0  # Batch-norm's outputs rarely leave it, so little is lost where a layer clips there.


def layer(in_channels, out_channels, bits, act=None):
    """A convolution and its batch-norm; float where bits is None."""
    if bits is None:
        conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())
    act = act or QActivation(bits, "relu", input_range=RANGE)
    conv = QConv2d(in_channels, out_channels, 3, padding=1, bias=False, weight_bits=bits, act=act)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def head(in_channels, bits):
    """Offsets and classes of two anchors a cell."""
    if bits is None:
        return nn.Conv2d(in_channels, 2 * OUTPUTS, 3, padding=1)
    act = QActivation(8, "relu", input_range=RANGE)
    return QConv2d(in_channels, 2 * OUTPUTS, 3, padding=1, weight_bits=8, act=act)


class Detector(nn.Module):
    """(N, anchors, 4 offsets and 11 classes) from scenes (N, 1, 48, 48)."""

    def __init__(self, bits=None):
        super().__init__()
        first = None if bits is None else 8
        self.layer1 = layer(1, 32, first, first and QActivation(8, "relu"))
        self.layer2 = layer(32, 64, bits)
        self.layer3 = layer(64, 64, bits)
        self.layer4 = layer(64, 64, bits)
        self.layer5 = layer(64, 64, bits)
        self.pool = nn.MaxPool2d(2)
        self.head4, self.head8 = head(64, bits), head(64, bits)

    def forward(self, x):
        x = self.layer2(self.pool(self.layer1(x)))
        fine = self.layer3(self.pool(x))
        coarse = self.layer5(self.pool(self.layer4(fine)))
        maps = self.head4(fine), self.head8(coarse)
        return torch.cat([y.permute(0, 2, 3, 1).reshape(len(x), -1, OUTPUTS) for y in maps], 1)


# %%
# From boxes to targets, and back
# -------------------------------
# An anchor is responsible for a digit whose box it overlaps by half, and each digit has its best
# anchor. Offsets are SSD's: of the centre by the anchor's size, of the size as a logarithm.


def make_anchors():
    """Centres and sizes (anchors, 4) in the order of the network's output."""
    rows = []
    for cell, sizes in ANCHORS.items():
        centres = (np.arange(scenes.SIZE // cell) + 0.5) * cell
        rows += [(x, y, *size) for y in centres for x in centres for size in sizes]
    return torch.tensor(rows, dtype=torch.float32)


def corners(boxes):
    """Edges from centres and sizes."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([centre - half, centre + half], 1)


def overlaps(a, b):
    """Intersection over union of each box of a with each of b, by their edges."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    both = (high - low).clamp_min(0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (a, b)]
    return both / (areas[0][:, None] + areas[1][None] - both)


anchors = make_anchors()
STEP = torch.tensor([0.1, 0.1, 0.2, 0.2])  # SSD's scales of the offsets.


def encode(boxes, labels):
    """Target (anchors, 1 class and 4 offsets) of one scene."""
    shared = overlaps(corners(anchors), boxes)
    best, owner = shared.max(1)
    owner[shared.argmax(0)] = torch.arange(len(boxes))
    best[shared.argmax(0)] = 1.0
    matched = boxes[owner]
    centre = (matched[:, :2] + matched[:, 2:]) / 2
    move = (centre - anchors[:, :2]) / anchors[:, 2:]
    stretch = torch.log((matched[:, 2:] - matched[:, :2]) / anchors[:, 2:])
    classes = torch.where(best >= 0.5, labels[owner], BACKGROUND)
    return torch.cat([classes[:, None], torch.cat([move, stretch], 1) / STEP], 1)


def decode(output, least_score=0.02, overlap=0.45):
    """Boxes, scores and labels of one scene: the best of those that overlap."""
    moved = output[:, :4] * STEP
    boxes = corners(
        torch.cat(
            [
                anchors[:, :2] + moved[:, :2] * anchors[:, 2:],
                anchors[:, 2:] * moved[:, 2:].exp(),
            ],
            1,
        )
    )
    scores, labels = output[:, 4:].softmax(1)[:, :BACKGROUND].max(1)
    kept = []
    for index in scores.argsort(descending=True)[: int((scores > least_score).sum())].tolist():
        same = [k for k in kept if labels[k] == labels[index]]
        if not same or overlaps(boxes[index, None], boxes[same]).max() < overlap:
            kept.append(index)
    return boxes[kept], scores[kept], labels[kept]


# %%
# Training
# --------
# SSD's loss: cross-entropy of the anchors with a digit and of the three times as many others that
# the network gets most wrong, and the smooth L1 distance of the offsets.


def loss(output, target):
    """Mean over the anchors with a digit."""
    classes = target[..., 0].long()
    found = classes != BACKGROUND
    entropy = functional.cross_entropy(output[..., 4:].transpose(1, 2), classes, reduction="none")
    hard = entropy[~found].topk(3 * int(found.sum())).values
    offsets = functional.smooth_l1_loss(
        output[..., :4][found], target[..., 1:][found], reduction="sum"
    )
    return (entropy[found].sum() + hard.sum() + offsets) / found.sum()


def keep(images, _generator):
    """The scenes as they are: their boxes stay where they are."""
    return images


pairs = zip(train_scenes.boxes, train_scenes.labels)
data = train_scenes.images, torch.stack([encode(*pair) for pair in pairs])
models, before = {}, None
torch.manual_seed(0)
for bits, epochs in [(None, 15), (8, 3), (6, 3), (4, 3), (2, 5)]:
    model = Detector(bits)
    if before is not None:
        init_from(model, before)
    before = train(model, data, epochs, lr=2e-3, loss=loss, augment=keep, batch_size=32)
    name = "float" if bits is None else f"W{bits}A{bits}"
    models[name] = before
    console.print(f"trained {name}, {epochs} epochs")

# %%
# Mean average precision
# ----------------------
# `pycocotools` computes it as COCO does: over overlaps of 0.5 to 0.95.


def truth():
    """The test scenes in COCO's form."""
    boxes = [
        (scene, box.tolist(), int(label))
        for scene in range(len(test_scenes))
        for box, label in zip(test_scenes.boxes[scene], test_scenes.labels[scene])
    ]
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": scene} for scene in range(len(test_scenes))],
        "categories": [{"id": label} for label in range(BACKGROUND)],
        "annotations": [
            {
                "id": number,
                "image_id": scene,
                "category_id": label,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": 0,
            }
            for number, (scene, (x0, y0, x1, y1), label) in enumerate(boxes, 1)
        ],
    }
    coco.createIndex()
    return coco


def average_precision(outputs):
    """Mean average precision of outputs (scenes, anchors, 15), and that at an overlap of 0.5."""
    rows = []
    for scene, output in enumerate(torch.as_tensor(outputs)):
        for (x0, y0, x1, y1), score, label in zip(*(part.tolist() for part in decode(output))):
            rows.append([scene, x0, y0, x1 - x0, y1 - y0, score, label])
    with contextlib.redirect_stdout(io.StringIO()):  # It prints every step.
        coco = truth()
        evaluation = COCOeval(coco, coco.loadRes(np.array(rows)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:2]


# %%
# Compiled
# --------
# One library for all test scenes at once. With ``pipeline=no_lowering`` the imported module runs
# as it is, float and quantizers: the oracle. It is slow, so it sees some of the scenes. Compiled,
# every number is the same, to the bit.

images, few = test_scenes.images, test_scenes.images[:10]
table = Table("network", "mAP, torch", "mAP, compiled", "at overlap 0.5", "equal", "us a scene")
precision, outputs = {}, {}
for name, model in models.items():
    with torch.no_grad():
        in_torch, coarse = average_precision(model(images))
    if name == "float":
        precision[name] = in_torch
        table.add_row(name, f"{in_torch:.3f}", "", f"{coarse:.3f}", "", "")
        continue
    lib = be.build(be.from_torch(model, (images,)))
    outputs[name] = lib(images)
    precision[name], coarse = average_precision(outputs[name])
    oracle = be.build(be.from_torch(model, (few,)), pipeline=no_lowering)
    assert np.array_equal(outputs[name][: len(few)], oracle(few)), name
    seconds = lib.benchmark(images, number=1, repeat=5).best / len(images)
    numbers = [f"{value:.3f}" for value in (in_torch, precision[name], coarse)]
    table.add_row(name, *numbers, "yes", f"{1e6 * seconds:.0f}")
console.print(table)

# %%
# What the compiled detector must keep of the float one's precision.

assert precision["W8A8"] >= precision["float"] - 0.01
assert precision["W4A4"] >= precision["float"] - 0.03

# %%
# Boxes
# -----
# What the compiled network sees at 4 and at 2 bits; boxes of the wrong digit, or of none, are red.


def draw(axis, scene, output):
    """A scene, and the boxes whose score is above one half."""
    axis.imshow(test_scenes.images[scene, 0], cmap="gray")
    axis.axis("off")
    boxes, scores, labels = decode(torch.as_tensor(output))
    for box, score, label in zip(boxes, scores, labels):
        if score < 0.5:
            continue
        same = test_scenes.boxes[scene][test_scenes.labels[scene] == label]
        is_right = len(same) and overlaps(box[None], same).max() >= 0.5
        color = "tab:cyan" if is_right else "tab:red"
        corner, (width, height) = box[:2] - 0.5, box[2:] - box[:2]
        axis.add_patch(pyplot.Rectangle(corner, width, height, fill=False, color=color))
        axis.text(*(corner + 1), str(int(label)), color=color, va="top", fontsize=8)


figure, axes = pyplot.subplots(2, 6, figsize=(10, 3.6))
for row, name in zip(axes, ("W4A4", "W2A2")):
    for scene, axis in enumerate(row):
        draw(axis, scene, outputs[name][scene])
    row[0].set_title(f"{name}, mAP {precision[name]:.3f}", loc="left")
figure.tight_layout()
OUT.mkdir(exist_ok=True)
figure.savefig(OUT / "detection.png", dpi=110)
console.print(f"The picture: {OUT / 'detection.png'}")
