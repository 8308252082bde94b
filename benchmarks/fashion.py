"""Train a residual network on Fashion-MNIST at several bits, and compile it: accuracy and bytes.

    apt-get install dataset-fashion-mnist
    python -m benchmarks.fashion --networks W2A2 W1A2/4 W1A2/nearest32 --epochs 3

``W1A2/4`` has weights that are copies of four tiles (`tvm_bitenc.nn.tiles`) but for its smallest
layer, ``W1A2/nearest32`` kernels that are 32 codewords (`CodebookConv2d`). A float network is
trained first. All others start from it, and learn half from the labels and half from its outputs
for as many epochs; one of them is float, and what the others are compared with. The compiled
network predicts beside torch's, on all 10,000 images.

``FASHION_MNIST`` names another folder with the data set's four files.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import tvm_bitenc
from tvm_bitenc.nn import FashionNet, init_from
from tvm_bitenc.nn.datasets import load_fashion
from tvm_bitenc.nn.training import distilled, flipped, train

from .machine import this_machine
from .results import print_table, write_json

BATCH = 64
TESTED = 1000  # Images at once.
NETWORK = re.compile(r"W([1-8])A([1-8])(?:/([1-9][0-9]?))?|W1A([1-8])/(nearest|permute)(16|32|64)")
NETWORKS = ("W4A4", "W2A2", "W1A2", "W1A2/4", "W1A2/nearest32", "W1A2/permute32", "W1A1")
HEADINGS = ("network", "accuracy, %", "below float", "same as torch", "bytes", "bits/weight", "s")


def main(arguments: Sequence[str] | None = None) -> list[dict]:
    """Train, compile, print and write what the command line asks for; return the records."""
    options = _parser().parse_args(arguments)
    layers = {name: options_of(name) for name in options.networks}
    try:
        images, labels, *tested = load_fashion()
    except FileNotFoundError as error:
        raise SystemExit(str(error)) from None
    images, labels = images[: options.images], labels[: options.images]
    learn = partial(
        train,
        epochs=options.epochs,
        batch_size=BATCH,
        augment=flipped,
        seed=options.seed,
        codebook_rate=options.codebook_rate,
    )
    start, (machine, records) = time.perf_counter(), (this_machine(), [])
    teacher = learn(_made(None, options), images, labels, rate=3e-3)
    targets = distilled(teacher, images, labels)
    twin = learn(init_from(_made(None, options), teacher), images, targets, rate=2e-3)
    full = float((predictions(twin, tested[0]) == tested[1]).float().mean())
    print(f"float: {full:.2%} in {time.perf_counter() - start:.0f} s", flush=True)
    for name, own in layers.items():
        start, model = time.perf_counter(), init_from(_made(own, options), teacher)
        learn(model, images, targets, rate=2e-3)
        record = {"network": name, "float_accuracy": full, **measured(model, *tested)}
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
        default=NETWORKS,
        metavar="WMAK[/...]",
        help="bits of weights and activations, and tiles (W1A2/4) or codewords (W1A2/nearest32,"
        f" W1A2/permute16); default {' '.join(NETWORKS)}",
    )
    made.add_argument("--epochs", type=int, default=3, help="of each network; default 3")
    made.add_argument("--images", type=int, help="train on so many alone")
    made.add_argument("--codebook-rate", type=float, default=10.0, help="as in `nn.training.train`")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--json", type=Path, metavar="FILE", help="write all results here")
    return made


def options_of(name: str) -> dict[str, Any]:
    """Options of the layers of a network, from its name."""
    found = NETWORK.fullmatch(name)
    if found is None:
        raise SystemExit(f"{name!r} isn't a network like W2A2, W1A2/4 or W1A2/nearest32")
    weight_bits, act_bits, tiles, coded_bits, select, codewords = found.groups()
    if select:
        return dict(codewords=int(codewords), select=select, act_bits=int(coded_bits))
    return dict(weight_bits=int(weight_bits), act_bits=int(act_bits), tiles=int(tiles or 1))


def _made(layers: dict[str, Any] | None, options: argparse.Namespace) -> FashionNet:
    torch.manual_seed(options.seed)
    return FashionNet(layers)


@torch.no_grad()
def predictions(model: nn.Module, images: Tensor) -> Tensor:
    """Kinds that a model takes images for, int64."""
    return torch.cat([model(part).argmax(1) for part in images.split(TESTED)])


def measured(model: nn.Module, images: Tensor, labels: Tensor) -> dict:
    """Accuracy of a model, and what its compiled twin predicts and weighs."""
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
