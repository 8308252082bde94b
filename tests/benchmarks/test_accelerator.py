"""Tables of networks on the accelerator."""

# ruff: noqa: E402  What may be missing is asked for first.
from dataclasses import replace

import pytest

for package in ("rich", "torch"):
    pytest.importorskip(package, reason="pip install 'tvm-bitenc[bench,torch]'")

import torch
from torch import nn

import tvm_bitenc as be
from benchmarks import accelerator
from benchmarks.models import Network
from benchmarks.models.parts import ConvNormAct
from tvm_bitenc.target import load_target


@pytest.fixture
def rows(capsys):
    """Cells of the rows that a command line prints."""

    def rows(*arguments):
        accelerator.main(arguments)
        lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("│")]
        return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]

    return rows


def network(*bits: int) -> nn.Module:
    """Three layers, of which the accelerator can't run the second: groups of two channels."""
    layers = [ConvNormAct(bits, 8, 8, 3, signed=True), ConvNormAct(bits, 8, 8, 3, groups=4)]
    return nn.Sequential(*layers, ConvNormAct(bits, 8, 8))


def test_a_network_has_a_line_and_its_layers_have_others(rows, monkeypatch):
    monkeypatch.setattr(accelerator, "CHOSEN", {"small": Network(network, (1, 8, 6, 6))})
    *layers, whole = rows("--bits", "1,2", "--layers")
    assert [row[0] for row in layers] == ["0.0", "1.0", "2.0"]
    assert [bool(row[3]) for row in layers] == [True, False, True]
    assert "group" in layers[1][-1] and not layers[0][-1]
    cycles = sum(int(row[3].replace(",", "")) for row in layers if row[3])
    assert whole[:2] == ["small W1A2", f"{cycles:,}"] and whole[3:5] == ["2", "81.6 %"]
    assert int(whole[5].replace(",", "")) > 0


def test_layers_by_themselves(rows):
    found = rows("--shapes", "--bits", "1,1")
    assert len(found) == len(accelerator.SHAPES) * len(accelerator.TILES)
    assert found[0][0] == "3x3 64->64 @56 W1A1" and float(found[0][2].rstrip(" %")) > 80


def test_no_such_network():
    with pytest.raises(SystemExit, match="They are: ResNet-18"):
        accelerator.main(["--networks", "none"])


@pytest.mark.slow
@pytest.mark.parametrize("units", [0, 1])
@pytest.mark.parametrize("name, most", [("ResNet-18", 3), ("MobileNetV2", 2), ("UNet", 1)])
def test_networks_of_full_size_are_the_cpus(name, most, units, same):
    """With a float unit, in few programs; between them the CPU pools, and takes means."""
    network = accelerator.CHOSEN[name]
    model = network.quantized((2, 2), network.twin())
    x = torch.randn(network.shape, generator=torch.Generator().manual_seed(1))
    mod, target = be.from_torch(model, (x,)), load_target("vta")
    machine = replace(target.accelerator, float_units=units)
    lib = be.build(mod, target=replace(target, accelerator=machine))
    assert same(lib(x.numpy()), be.build(mod)(x.numpy()))
    assert all(row.strategy == "vta" for row in lib.report().layers)
    assert not units or lib.report().programs == most
