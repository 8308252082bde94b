"""Train a residual network on Fashion-MNIST at several bits, and compile it: accuracy and bytes.

    apt-get install dataset-fashion-mnist
    python -m benchmarks.fashion --networks W2A2 W1A2/4 W1A2/nearest32 --epochs 3

``FASHION_MNIST`` names another folder with the data set's four files. Names of networks:

=================== ================================================================================
``W1A2/4``          weights are copies of four tiles (`tvm_bitenc.nn.tiles`) but for small layers'
``W1A2/nearest32``  kernels are 32 codewords (`CodebookConv2d`); or ``permute``; or 16, 64
``PA4x5``           weights of four pieces beside 0, inputs of five steps (`PiecewiseConv2d`)
``W1A1+planes``     the first layer reads bit planes (`BitPlaneConv2d`); without, it has 8 bits
``W1A1+sign``       the first layer has 1-bit weights and pixels
=================== ================================================================================

A float network is trained first. All others start from it, and learn half from the labels and half
from its outputs for as many epochs; one of them is float, and what the others are compared with.
The last 5,000 images of the training set are for choosing recipes: nothing learns from them. The
10,000 test images are for the figures; the compiled network predicts beside torch's on all of them.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import tvm_bitenc
from tvm_bitenc.nn import CodebookConv2d, FashionNet, init_from
from tvm_bitenc.nn.codewords import kernel_numbers
from tvm_bitenc.nn.datasets import load_fashion
from tvm_bitenc.nn.training import distilled, flipped, train

from .fashion_tables import BAR_HEADINGS, HEADINGS, bar_rows, row_of
from .machine import this_machine
from .results import print_table, write_json

BATCH = 64
VALIDATED = 5000
TESTED = 1000  # Images at once.
NETWORK = re.compile(
    r"(?:W(?P<weight_bits>[1-8])A(?P<act_bits>[1-8])(?:/(?P<tiles>[1-9][0-9]?))?"
    r"|W1A(?P<coded_bits>[1-8])/(?P<select>nearest|permute)(?P<codewords>16|32|64)"
    r"|PA(?P<weight_pieces>[2468])x(?P<act_steps>[1-8]))"
    r"(?:\+(?P<first>planes|sign))?"
)
NETWORKS = (
    *("W4A4", "W2A2", "PA4x5", "W1A2", "W1A2/4", "W1A2/nearest32", "W1A2/permute32"),
    *("W1A1", "W1A1+planes", "W1A1+sign"),
)


def main(arguments: Sequence[str] | None = None) -> list[dict]:
    """Train, compile, print and write what the command line asks for; return the records."""
    options = _parser().parse_args(arguments)
    layers = {name: options_of(name) for name in options.networks}
    try:
        images, labels, *tested = load_fashion()
    except FileNotFoundError as error:
        raise SystemExit(str(error)) from None
    torch.set_num_threads(options.threads or torch.get_num_threads())
    validated = images[-options.validated :], labels[-options.validated :]
    count = min(options.images or len(images), len(images) - options.validated)
    images, labels = images[:count], labels[:count]
    learn = partial(
        train,
        epochs=options.epochs,
        batch_size=BATCH,
        augment=flipped,
        seed=options.seed,
        codebook_rate=options.codebook_rate,
    )
    shared = dict(seed=options.seed, trained_images=len(images), epochs=options.epochs)
    machine, threads, records = this_machine(), torch.get_num_threads(), []
    teacher = learn(_made({}, options), images, labels, rate=3e-3)
    targets = distilled(teacher, images, labels)
    for name, own in {"float": {}, **layers}.items():
        start, model = time.process_time(), init_from(_made(own, options), teacher)
        learned = _learned(model, partial(learn, images=images, targets=targets, rate=options.rate))
        record = {"network": name, **shared, **learned}
        record |= measured(model, validated, tested, quantized=bool(own))
        record["seconds"] = time.process_time() - start
        records.append(record)
        said = f"{record['validation']:.2%} validation, {record['accuracy']:.2%} test"
        print(f"{name}: {said}, {record['seconds']:.0f} s of the CPU", flush=True)
        # After each network: to train all of them takes long.
        write_json(options.json, machine, "benchmarks.fashion", threads=threads, fashion=records)
    print_table("Fashion-MNIST", HEADINGS, [row_of(record, records[0]) for record in records])
    if bars := bar_rows(records):
        print_table("What should hold", BAR_HEADINGS, bars)
    return records


def _learned(model: nn.Module, learn: Callable[[nn.Module], nn.Module]) -> dict[str, int]:
    """Train a model; return how many codewords it has, and how many it didn't start with."""
    codewords = _codewords(model)
    learn(model)
    new = len(_codewords(model) - codewords)
    return {"new_codewords": new, "codewords": len(codewords)} if codewords else {}


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="Train and compile networks for Fashion-MNIST.")
    made.add_argument(
        "--networks",
        nargs="*",
        default=NETWORKS,
        metavar="NAME",
        help=f"as the module's text names them; default {' '.join(NETWORKS)}",
    )
    made.add_argument("--epochs", type=int, default=3, help="of each network; default 3")
    made.add_argument("--images", type=int, help="train on so many alone")
    made.add_argument("--validated", type=int, default=VALIDATED, help="images to choose by")
    made.add_argument("--rate", type=float, default=2e-3, help="learning rate; default 0.002")
    made.add_argument("--codebook-rate", type=float, default=10.0, help="as in `nn.training.train`")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--threads", type=int, help="of training; default torch's")
    made.add_argument("--json", type=Path, metavar="FILE", help="write all results here")
    return made


def options_of(name: str) -> dict[str, Any]:
    """Arguments of `FashionNet` from the name of a network."""
    found = NETWORK.fullmatch(name)
    if found is None:
        raise SystemExit(
            f"{name!r} isn't a network like W2A2, W1A2/4, W1A2/nearest32, PA4x5 or W1A1+planes"
        )
    parts = {key: value for key, value in found.groupdict().items() if value}
    first = parts.pop("first", "int8")
    if "coded_bits" in parts:
        parts["act_bits"] = parts.pop("coded_bits")
    layers = {key: value if key == "select" else int(value) for key, value in parts.items()}
    return {"options": layers, "first": first}


def _made(own: dict[str, Any], options: argparse.Namespace) -> FashionNet:
    torch.manual_seed(options.seed)
    return FashionNet(**own)


def _codewords(model: nn.Module) -> set[tuple[str, int]]:
    """Layer and number of each codeword of a network."""
    layers = {name: m for name, m in model.named_modules() if isinstance(m, CodebookConv2d)}
    return {
        (name, int(number))
        for name, layer in layers.items()
        for number in kernel_numbers(layer.choice.kernels)
    }


@torch.no_grad()
def predictions(model: nn.Module, images: Tensor) -> Tensor:
    """Kinds that a model takes images for, int64."""
    return torch.cat([model(part).argmax(1) for part in images.split(TESTED)])


def measured(
    model: nn.Module, validated: Sequence[Tensor], tested: Sequence[Tensor], quantized: bool
) -> dict[str, Any]:
    """Accuracies of a model, and of a quantized one what its compiled twin predicts and weighs."""
    wanted = predictions(model, tested[0])
    found: dict[str, Any] = {
        "validation": float((predictions(model, validated[0]) == validated[1]).float().mean()),
        "accuracy": float((wanted == tested[1]).float().mean()),
        "images": len(wanted),
    }
    if not quantized:
        return found
    library = tvm_bitenc.build(tvm_bitenc.from_torch(model, (tested[0][:TESTED],)))
    compiled = [library(part).argmax(1) for part in tested[0].split(TESTED)]
    report = library.report()
    body = replace(report, layers=[r for r in report.layers if r.name.startswith("blocks")])
    return {
        **found,
        "same_predictions": int((np.concatenate(compiled) == wanted.numpy()).sum()),
        "stored_bytes": report.stored_bytes,
        "bits_per_weight": 32 * body.stored_bytes / body.float_bytes,
    }


if __name__ == "__main__":
    main()
