"""A residual block: float arithmetic joins convolutions, and every number stays torch's."""

import pytest
import torch
from torch import nn

import tvm_bitenc as be
from tvm_bitenc.nn import QConv2d
from tvm_bitenc.target import DEFAULT_RULES, Target, load_target, native_target
from tvm_bitenc.transform.pipeline import default_pipeline, no_lowering

TWO = dict(weight_bits=2, act_bits=2)


class Block(nn.Module):
    """A first layer of three channels, then a quantized convolution beside its input."""

    def __init__(self):
        super().__init__()
        self.stem = QConv2d(3, 16, 1, bias=False, weight_bits=8, act_bits=8)
        self.conv = QConv2d(16, 16, 3, padding=1, bias=False, **TWO)
        self.norm = nn.BatchNorm2d(16)

    def forward(self, x):
        x = self.stem(x)
        return x + self.norm(self.conv(x))


@pytest.fixture(scope="module")
def block():
    torch.manual_seed(0)
    model = Block()
    model.norm.running_mean.normal_(), model.norm.running_var.uniform_(0.1, 3)
    nn.init.normal_(model.norm.weight), nn.init.normal_(model.norm.bias)
    x = torch.rand(1, 3, 8, 7)
    return be.from_torch(model.eval(), (x,)), x.numpy()


@pytest.mark.sweep(2)
@pytest.mark.parametrize("strategy", ["auto", "xnor", "lut", "int8"])
def test_exact(strategy, block, same):
    mod, x = block
    expected = be.build(mod, pipeline=no_lowering)(x)
    assert same(be.build(mod, strategy=strategy)(x), expected)


def test_arithmetic_joins_the_convolutions(block, ops_of):
    passes = default_pipeline(native_target(), "int8")
    before = ops_of(passes.until("bitenc.FuseFloat").run(block[0]))
    after = ops_of(passes.until("bitenc.Strategy").run(block[0]))
    assert {"relax.add", "relax.astype"} <= set(before)
    assert not {"relax.add", "relax.astype", "bitenc.multiply_add"} & set(after)


def test_the_first_layer_reads_codes(block, ops_of):
    target = Target("v3", load_target("x86-64-v3").tvm_target, DEFAULT_RULES)
    passes = default_pipeline(target, "int8")
    counts = [
        ops_of(passes.until(name).run(block[0])).count("bitenc.pack")
        for name in ("bitenc.DirectCodes", "bitenc.Schedule")
    ]
    assert counts[1] == counts[0] - 1
