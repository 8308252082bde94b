"""Networks as people build them on the accelerator: exact, and what stays has a reason."""

import numpy as np
import pytest
import torch

import tvm_bitenc as be
from tests.models import SLOW, SMALL, randomised
from tvm_bitenc.nn import BitPlaneConv2d, QConv2d, QLinear
from tvm_bitenc.transform import no_lowering

NAMES = ("small vgg", "unet", "audio")  # Pooling, concatenation and upsampling, one dimension.


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
@pytest.mark.parametrize("make, shape", [{**SMALL, **SLOW}[name] for name in NAMES], ids=NAMES)
def test_networks(make, shape, same):
    torch.manual_seed(0)
    model, x = randomised(make()), torch.randn(shape)
    mod = be.from_torch(model, (x,))
    lib, oracle = be.build(mod, target="vta"), be.build(mod, threads=1, pipeline=no_lowering)
    results = ((y,) if isinstance(y, np.ndarray) else y for y in (lib(x), oracle(x)))
    for y, expected in zip(*results, strict=True):
        assert same(y, expected) and len(np.unique(y)) > 8
    report = lib.report()
    assert report.works and report.cycles > 0
    for row in report.layers:
        assert (row.work is None) == (row.strategy != "vta"), row.name
        # Pooling as a grouped sum, and products of two activations, are no layers of weights.
        assert row.work or row.cpu_reason or not row.float_bytes, row.name


def test_the_cpu_multiplies_nothing_before_the_classifier(same):
    """An image as bytes goes to the accelerator as it is; the last floats scale its answer."""
    torch.manual_seed(0)
    model = randomised(
        torch.nn.Sequential(
            BitPlaneConv2d(3, 8, 3, padding=1, bias=False),
            torch.nn.BatchNorm2d(8),
            QConv2d(8, 8, 3, weight_bits=2, act_bits=2, bias=False),
            torch.nn.BatchNorm2d(8),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            QLinear(32, 10, weight_bits=2, act_bits=2),
        )
    )
    x = torch.randint(0, 256, (2, 3, 6, 6)).to(torch.uint8)
    mod = be.from_torch(model, (x,))
    lib = be.build(mod, target="vta")
    report = lib.report()
    assert [row.strategy for row in report.layers] == ["vta"] * 4
    assert [op.op for op in report.float_ops] == ["multiply", "add"]  # The classifier's.
    assert [op.count for op in report.float_ops] == [1, 1]
    first = report.layers[0]
    assert first.work is not None and first.bit_operations == 8 * first.macs
    y = lib(x)
    assert same(y, be.build(mod, threads=1, pipeline=no_lowering)(x)) and len(np.unique(y)) > 8
