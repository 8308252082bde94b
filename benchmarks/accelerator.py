"""Cycles of whole networks on the accelerator, by its cycle model.

    python -m benchmarks.accelerator
    python -m benchmarks.accelerator --networks resnet --bits 1,1 --layers
    python -m benchmarks.accelerator --shapes

Cycles are those of all programs of one sample, one after another; utilization is the products that
the layers need, of all that the array could do in these cycles. Layers that hang together are one
program, and what the CPU hands over to programs and takes from them is counted. With --layers every
layer has a line, or the reason why it stays on the CPU; with --shapes the 3x3 layers of ResNet-18
have lines instead, by themselves, and with weights that repeat.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import torch

from tvm_bitenc import from_torch
from tvm_bitenc.explain import explain
from tvm_bitenc.report import Report
from tvm_bitenc.report.data import LayerRow
from tvm_bitenc.simulate.sample import sample_layer
from tvm_bitenc.target import Target, load_target
from tvm_bitenc.vta.compile_layer import compile_conv
from tvm_bitenc.vta.counters import predicted

from .models import IMAGENET, NETWORKS, Network
from .models.vgg import VGG16
from .results import Bits, bits, bits_name, print_table

CHOSEN = {
    "ResNet-18": NETWORKS["ResNet-18"],
    "VGG-16": Network(VGG16, IMAGENET),
    "UNet": NETWORKS["UNet"],
    "MobileNetV2": NETWORKS["MobileNetV2"],
}
DEFAULT_BITS = [(1, 1), (2, 2)]
SHAPES = ("3x3 64->64 @56", "3x3 128->128 @28", "3x3 256->256 @14", "3x3 512->512 @7")
TILES = ("", " tiles=2", " tiles=4", " tiles=8")
NETWORK_HEADINGS = (
    "network",
    "cycles",
    "utilization",
    "programs",
    "of all products",
    "bytes through the CPU",
    "largest",
)
LAYER_HEADINGS = (
    "layer",
    "shape",
    "bits",
    "cycles",
    "utilization",
    "DRAM bytes",
    "on the CPU, for",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables that the command line asks for."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--networks", nargs="+", default=[""], metavar="TEXT")
    made.add_argument("--bits", type=bits, nargs="+", default=DEFAULT_BITS, metavar="M,K")
    made.add_argument("--target", default="vta", help="vta, or a TOML file like those of it")
    made.add_argument("--layers", action="store_true", help="print all layers")
    made.add_argument("--shapes", action="store_true", help="ResNet-18's 3x3 layers by themselves")
    options = made.parse_args(arguments)
    target = load_target(options.target)
    if options.shapes:
        headings = ("layer", "cycles", "utilization", "DRAM bytes")
        print_table("3x3 layers", headings, shape_rows(options.bits, target))
        return
    chosen = [n for n in CHOSEN if any(part.lower() in n.lower() for part in options.networks)]
    if not chosen:
        raise SystemExit(f"No network matches. They are: {', '.join(CHOSEN)}")
    rows = []
    for name in chosen:
        for pair in options.bits:
            report = report_of(CHOSEN[name], pair, target)
            title = f"{name} {bits_name(pair)}"
            rows.append(network_row(title, report))
            if options.layers:
                print_table(title, LAYER_HEADINGS, map(layer_row, report.layers))
    print_table(f"networks on {target.name}, by the cycle model", NETWORK_HEADINGS, rows)


def report_of(network: Network, pair: Bits, target: Target) -> Report:
    """What each layer of a network with random weights becomes."""
    torch.manual_seed(0)
    model = network.make(*pair).eval()
    return explain(from_torch(model, (torch.zeros(network.shape),)), target)


def network_row(title: str, report: Report) -> list[str]:
    """One network's cells: sums over its layers, and the layer that takes most cycles."""
    on_it = [row for row in report.layers if row.work]
    share = sum(row.macs for row in on_it) / sum(row.macs for row in report.layers)
    largest = max(on_it, key=lambda row: row.work.cycles)
    part = largest.work.cycles / report.cycles
    return [
        title,
        f"{report.cycles:,}",
        f"{100 * report.utilization:.1f} %",
        str(report.programs),
        f"{100 * share:.1f} %",
        f"{report.cpu_bytes:,}",
        f"{largest.name} {100 * part:.0f} %",
    ]


def layer_row(row: LayerRow) -> list[str]:
    """One layer's cells."""
    cells = [row.name, row.shape, f"W{row.weight_bits}A{row.act_bits} -> {row.out_bits}"]
    if row.work is None:
        return [*cells, "", "", "", row.cpu_reason]
    share = f"{100 * row.work.utilization:.1f} %"
    return [*cells, f"{row.work.cycles:,}", share, f"{row.work.dram_bytes:,}", ""]


def shape_rows(pairs: Sequence[Bits], target: Target) -> Iterator[list[str]]:
    """Cells of layers by themselves."""
    accelerator = target.accelerator
    for pair in pairs:
        for tiles in TILES:
            for shape in SHAPES:
                layer = sample_layer(shape + tiles, bits_name(pair))
                program = compile_conv(layer, accelerator)
                cycles = predicted(program, accelerator)
                share = cycles.utilization(program.macs, accelerator)
                yield [
                    layer.name,
                    f"{cycles.cycles:,}",
                    f"{100 * share:.1f} %",
                    f"{cycles.dram_bytes:,}",
                ]


if __name__ == "__main__":
    main()
