"""Train a residual network on Fashion-MNIST at several bits, and compile it: accuracy and bytes.

    apt-get install dataset-fashion-mnist
    python -m benchmarks.fashion --networks W2A2 W1A2 W1A2/4 --epochs 10

``W1A2/4`` has weights that are copies of four tiles (`tvm_bitenc.nn.tiles`). Each network starts
from the float one. The compiled network predicts beside torch's, on all 10,000 images.

Debian's package has all images, 28 by 28 pixels of ten kinds of clothing (Xiao et al., arXiv
1708.07747); ``FASHION_MNIST`` names another folder with its four files.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import tvm_bitenc
from tvm_bitenc.nn import QConv2d, QLinear, init_from

from .machine import this_machine
from .results import print_table, write_json

FOLDER = Path("/usr/share/datasets/fashion-mnist")
HEADER = {"images": 16, "labels": 8}  # Bytes in front of the numbers: magic and sizes.
SIZE = 28
SHIFT = 2
BATCH = 128
TESTED = 1000  # Images at once.
NETWORK = re.compile(r"W([1-8])A([1-8])(?:/([1-9][0-9]?))?")
HEADINGS = ("network", "accuracy, %", "below float", "same as torch", "bytes", "bits/weight", "s")
Data = tuple[Tensor, Tensor, Tensor, Tensor]


def load_fashion() -> Data:
    """x_train, y_train, x_test, y_test: float32 (N, 1, 28, 28) in 0..1 and int64 (N,).

    The data set's own split, 60,000 and 10,000 images.

    Raises
    ------
    SystemExit
        If the files aren't there, with how to get them.
    """
    folder = Path(os.environ.get("FASHION_MNIST", FOLDER))
    if not (folder / "train-images-idx3-ubyte.gz").exists():
        raise SystemExit(
            f"Fashion-MNIST isn't in {folder}: apt-get install dataset-fashion-mnist, or set"
            " FASHION_MNIST to a folder with its four files (train-images-idx3-ubyte.gz ...)."
        )
    x_train, y_train, x_test, y_test = (
        _numbers(folder / f"{part}-{kind}-idx{3 if kind == 'images' else 1}-ubyte.gz", kind)
        for part in ("train", "t10k")
        for kind in ("images", "labels")
    )
    return x_train, y_train, x_test, y_test


def _numbers(path: Path, kind: str) -> Tensor:
    with gzip.open(path) as file:
        values = np.frombuffer(file.read(), np.uint8, offset=HEADER[kind])
    if kind == "labels":
        return torch.from_numpy(values.astype(np.int64))
    return torch.from_numpy(values.reshape(-1, 1, SIZE, SIZE).astype(np.float32) / 255)


class FashionNet(nn.Module):
    """A convolution of stride 2 and three residual blocks, 32 and 64 channels wide.

    Parameters
    ----------
    options : dict, optional
        Keyword arguments of the `QConv2d` of all convolutions but the first, such as
        ``weight_bits=1, act_bits=2, tiles=4``. The first layer and the classifier have 8 bits, as
        is usual. None: the float twin with ReLU, of the same parameter names.
    """

    def __init__(self, options: dict[str, Any] | None = None):
        super().__init__()
        outer = dict(weight_bits=8, act_bits=8) if options is not None else {}
        conv, linear = (nn.Conv2d, nn.Linear) if options is None else (QConv2d, QLinear)
        self.first = conv(1, 32, 3, 2, 1, bias=False, **outer)
        self.norm = nn.BatchNorm2d(32)
        self.blocks = nn.Sequential(
            Block(32, 64, options), Block(64, 64, options, 1), Block(64, 64, options, 1)
        )
        self.act = nn.ReLU() if options is None else nn.Identity()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = linear(64, 10, **outer)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 10) from float32 images (N, 1, 28, 28) in 0..1."""
        x = self.blocks(self.act(self.norm(self.first(x))))
        return self.classifier(self.pool(functional.relu(x)).flatten(1))


class Block(nn.Module):
    """Two 3x3 convolutions with batch-norm, each with a float shortcut around it (Bi-Real Net)."""

    def __init__(
        self, channels: int, out_channels: int, options: dict[str, Any] | None, stride: int = 2
    ):
        super().__init__()
        conv, more = (nn.Conv2d, {}) if options is None else (QConv2d, options)
        self.conv1 = conv(channels, out_channels, 3, stride, 1, bias=False, **more)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv(out_channels, out_channels, 3, 1, 1, bias=False, **more)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU() if options is None else nn.Identity()
        self.shrink = nn.AvgPool2d(2) if stride == 2 else nn.Identity()
        self.copies = out_channels // channels

    def forward(self, x: Tensor) -> Tensor:
        """Float32 (N, out_channels, H / stride, W / stride)."""
        x = self.norm1(self.conv1(x)) + self.shrink(x).repeat(1, self.copies, 1, 1)
        return self.act(self.norm2(self.conv2(self.act(x))) + x)


def train(model: nn.Module, data: Data, epochs: int, rate: float, seed: int = 0) -> nn.Module:
    """Train by Adam, its rate falling to 0 as a cosine; return the model in eval mode."""
    x, y = data[:2]
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    steps = epochs * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(model(augmented(x[batch], generator)), y[batch]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def augmented(x: Tensor, generator: torch.Generator) -> Tensor:
    """Turn half of the images left to right, and shift all by up to two pixels."""
    turned = torch.rand(len(x), generator=generator) < 0.5
    x = torch.where(turned[:, None, None, None], x.flip(3), x)
    windows = functional.pad(x, (SHIFT,) * 4).unfold(2, SIZE, 1).unfold(3, SIZE, 1)
    dy, dx = torch.randint(2 * SHIFT + 1, (2, len(x)), generator=generator)
    return windows[torch.arange(len(x)), :, dy, dx]


def main(arguments: Sequence[str] | None = None) -> list[dict]:
    """Train, compile, print and write what the command line asks for; return the records."""
    options = _parser().parse_args(arguments)
    data = load_fashion()
    if options.images:
        data = (*(part[: options.images] for part in data[:2]), *data[2:])
    machine, records = this_machine(), []
    start, twin = time.perf_counter(), _made(None, options)
    train(twin, data, options.epochs, 3e-3, options.seed)
    predicted = predictions(twin, data[2])
    full = float((predicted == data[3]).float().mean())
    print(f"float: {full:.2%} in {time.perf_counter() - start:.0f} s", flush=True)
    for name in options.networks:
        start, model = time.perf_counter(), init_from(_made(options_of(name), options), twin)
        train(model, data, options.epochs, 2e-3, options.seed)
        record = {"network": name, "float_accuracy": full, **measured(model, data)}
        record["seconds"] = time.perf_counter() - start
        records.append(record)
        print(f"{name}: {record['accuracy']:.2%} in {record['seconds']:.0f} s", flush=True)
    print_table("Fashion-MNIST", HEADINGS, map(row_of, records))
    write_json(options.json, machine, "benchmarks.fashion", fashion=records)
    return records


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="Train and compile networks for Fashion-MNIST.")
    made.add_argument(
        "--networks",
        nargs="+",
        default=["W2A2", "W1A2", "W1A2/4"],
        metavar="WMAK[/P]",
        help="bits of weights and activations, and tiles; default W2A2 W1A2 W1A2/4",
    )
    made.add_argument("--epochs", type=int, default=10, help="of each network; default 10")
    made.add_argument("--images", type=int, help="train on so many alone")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--json", type=Path, metavar="FILE", help="write all results here")
    return made


def options_of(name: str) -> dict[str, int]:
    """Options of the layers of a network, from its name."""
    found = NETWORK.fullmatch(name)
    if found is None:
        raise SystemExit(f"{name!r} isn't a network like W2A2 or W1A2/4")
    weight_bits, act_bits, tiles = (int(number or 1) for number in found.groups())
    return dict(weight_bits=weight_bits, act_bits=act_bits, tiles=tiles)


def _made(layers: dict[str, int] | None, options: argparse.Namespace) -> FashionNet:
    torch.manual_seed(options.seed)
    return FashionNet(layers)


@torch.no_grad()
def predictions(model: nn.Module, images: Tensor) -> Tensor:
    """Kinds that a model takes images for, int64."""
    return torch.cat([model(part).argmax(1) for part in images.split(TESTED)])


def measured(model: nn.Module, data: Data) -> dict:
    """Accuracy of a model, and what its compiled twin predicts and weighs."""
    images, labels = data[2:]
    library = tvm_bitenc.build(tvm_bitenc.from_torch(model, (images[:TESTED],)))
    compiled = [library(part).argmax(1) for part in images.split(TESTED)]
    wanted, report = predictions(model, images), library.report()
    body = replace(report, layers=[r for r in report.layers if r.name.startswith("blocks")])
    return {
        "accuracy": float((wanted == labels).float().mean()),
        "same_predictions": int((np.concatenate(compiled) == wanted.numpy()).sum()),
        "images": len(images),
        "stored_bytes": report.stored_bytes,
        "bits_per_weight": 32 * body.stored_bytes / body.float_bytes,
    }


def row_of(record: dict) -> tuple[str, ...]:
    """Cells of a record, as `HEADINGS` names them."""
    return (
        record["network"],
        f"{100 * record['accuracy']:.2f}",
        f"{100 * (record['float_accuracy'] - record['accuracy']):.2f}",
        f"{record['same_predictions']:,} of {record['images']:,}",
        f"{record['stored_bytes']:,}",
        f"{record['bits_per_weight']:.2f}",
        f"{record['seconds']:.0f}",
    )


if __name__ == "__main__":
    main()
